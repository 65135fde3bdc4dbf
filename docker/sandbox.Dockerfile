# Where submitted aggregators run when bubblewrap is not at hand: Python and the libraries; no data and no labels. The package
# is that of the checkout: a container gets it, and one submission, read-only.
#
# Build:  docker build -f docker/sandbox.Dockerfile -t sharedlabel-sandbox .
# Run:    python -m sharedlabel.leaderboard run NAME --protocol ID --sandbox docker       (it starts the containers itself)
FROM python:3.12-slim

WORKDIR /sharedlabel
COPY requirements.lock ./
RUN pip install --no-cache-dir uv==0.13.8 && uv pip install --system --no-cache --require-hashes -r requirements.lock \
    && rm -rf /usr/local/lib/python3*/site-packages/sklearn/datasets/data

WORKDIR /tmp
USER 65534:65534
