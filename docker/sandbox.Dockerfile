# Where submitted aggregators run when bubblewrap is not at hand: Python, the libraries and the package; no data and no labels.
#
# Build:  docker build -f docker/sandbox.Dockerfile -t sharedlabel-sandbox .
# Run:    python -m sharedlabel.leaderboard run NAME --protocol ID --sandbox docker       (it starts the containers itself)
FROM python:3.12-slim

WORKDIR /sharedlabel
COPY requirements.lock ./
RUN pip install --no-cache-dir uv==0.13.8 && uv pip install --system --no-cache --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY sharedlabel ./sharedlabel
RUN uv pip install --system --no-cache --no-deps . && rm -rf /usr/local/lib/python3*/site-packages/sklearn/datasets/data

WORKDIR /tmp
USER 65534:65534
