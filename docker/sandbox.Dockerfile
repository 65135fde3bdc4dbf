# Where submitted aggregators run when bubblewrap is not at hand: Python and the libraries; no data and no labels. The package
# is that of the checkout: a container gets it, and one submission, read-only.
#
# Build:  docker build -f docker/sandbox.Dockerfile -t sharedlabel-sandbox .
# Run:    sharedlabel leaderboard run NAME --protocol ID --sandbox docker       (it starts the containers itself)
# Pinned as in docker/Dockerfile.
FROM python:3.12-slim@sha256:dddfd7e07f9d15aeeca61529320492139d21cac7f0070c00609243e51e4e0016

WORKDIR /sharedlabel
COPY requirements-build.lock requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements-build.lock && uv pip install --system --no-cache --require-hashes -r requirements.lock \
    && rm -rf /usr/local/lib/python3*/site-packages/sklearn/datasets/data

WORKDIR /tmp
USER 65534:65534
