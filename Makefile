# Needs Python 3.11 to 3.13, pip, make and git. Everything is installed into .venv from the files requirements*.lock, whose hashes are checked.
PYTHON ?= python3
# Of the documentation: a release such as 0.1.0, or what is worked on.
VERSION ?= dev
VENV := .venv
RUN := $(VENV)/bin/python
LOCKS := requirements.lock requirements-build.lock requirements-tools.lock
COMPILE = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --upgrade --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock"
# One more than there are cores, since tests wait for other processes; at most 8.
WORKERS = $$($(RUN) -c 'import os; print(min(8, 1 + (os.cpu_count() or 1)))')

.PHONY: install demo test lint lint-docker docs simulate mutants format package matrix docker-check lock audit pins browser clean

install: $(VENV)/.installed ## install into .venv and nothing else

demo: $(VENV)/.installed ## install, then train, compress, aggregate and report on real handwritten digits
	@echo "==> running the default experiment: python -m sharedlabel.train"
	$(RUN) -m sharedlabel.train

test: $(VENV)/.installed ## install, then run the tests
	@echo "==> running the tests"
	$(RUN) -m pytest --numprocesses $(WORKERS) --dist worksteal

docs: $(VENV)/.installed ## the documentation as a site, into site/VERSION, without the network
	@echo "==> building the documentation"
	$(RUN) -m website --version $(VERSION)

lint: $(VENV)/.installed ## style, types and layers
	@echo "==> linting"
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

mutants: $(VENV)/.tools ## change the code in small ways and see whether a test notices; takes an hour or more
	@echo "==> testing by mutation: docs/results/mutation.md says what survives, and why"
	$(RUN) tests/mutation/run.py

lint-docker: $(VENV)/.tools ## the Dockerfile
	@echo "==> linting the Dockerfile"
	$(VENV)/bin/hadolint docker/Dockerfile

simulate: $(VENV)/.installed ## error rates and coverage of the verdicts, quickly
	@echo "==> simulating the verdicts"
	$(RUN) -m benchmarks.error_rates --quick

format: $(VENV)/.installed ## rewrite the code in the project's format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

$(VENV)/bin/uv: requirements-build.lock
	@echo "==> creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "expected Python 3.11 to 3.13, got %d.%d; set PYTHON=python3.12, for example" % v)'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.lock
	@touch $@

$(VENV)/.tools: requirements-tools.lock $(VENV)/.installed
	$(VENV)/bin/uv pip install --python $(RUN) --quiet --require-hashes -r requirements-tools.lock
	@touch $@

$(VENV)/.installed: requirements.lock pyproject.toml $(VENV)/bin/uv
	@echo "==> installing the locked dependencies into $(VENV) (about 5 GB with the CUDA libraries; needed once)"
	$(VENV)/bin/uv pip install --python $(RUN) --quiet --compile-bytecode --require-hashes -r requirements.lock
	$(VENV)/bin/uv pip install --python $(RUN) --quiet --no-deps --no-build-isolation --editable .
	@touch $@

package: $(VENV)/.tools ## build source distribution and wheel into dist/, and check them
	@echo "==> building dist/"
	rm -rf dist build
	$(RUN) -m build --no-isolation
	$(VENV)/bin/twine check --strict dist/*

matrix: package ## the wheel in empty environments, oldest and newest packages, each Python; needs the network, takes half an hour
	$(RUN) -m tools.matrix dist/*.whl $(MATRIX) > docs/results/matrix.md

docker-check: ## carry out the Dockerfile without an engine; needs root, debootstrap, the network and the Dockerfile's PYTHON
	page=$$(mktemp) && $(PYTHON) -m tools.docker_check $(DOCKER_CHECK) > $$page && cp $$page docs/results/docker.md

lock: $(VENV)/bin/uv ## resolve the newest versions for every supported Python, with hashes
	$(COMPILE) pyproject.toml --extra dev --output-file requirements.lock
	$(COMPILE) requirements-build.in --constraint requirements.lock --output-file requirements-build.lock
	$(COMPILE) requirements-tools.in --constraint requirements.lock --output-file requirements-tools.lock

audit: $(VENV)/.tools ## ask PyPI whether what is locked has known faults; needs the network
	@echo "==> auditing the lock files"
	$(VENV)/bin/pip-audit --strict --disable-pip --require-hashes $(foreach file,$(LOCKS),--requirement $(file))

pins: ## print the base image's digest and the actions' commits of today; needs the network and docker
	docker buildx imagetools inspect python:3.12-slim --format '{{.Manifest.Digest}}'
	git ls-remote https://github.com/actions/checkout refs/tags/v4
	git ls-remote https://github.com/actions/setup-python refs/tags/v5

clean: ## remove the environment and caches, keep runs and data
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build dist site *.egg-info
