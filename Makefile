# Each target first creates the virtual environment that it needs.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	&& echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart photos test test-long unit integration cluster-test lint docs docs-build bench lock charts images clean
.NOTPARALLEL:

SOURCES := editr1 operators charts docs tests
PYTEST := $(BIN)/pytest -n 2 --dist loadfile

quickstart: $(VENV)/.all
	$(BIN)/editr1 run manifests/samples/quickstart.yaml

photos: $(VENV)/.dev
	$(BIN)/editr1 data demo-photos runs/photos-source --cases 5
	$(BIN)/editr1 data import runs/photos-source --table runs/photos-source/table.csv --out runs/photos-import
	$(BIN)/editr1 run manifests/samples/photos.yaml

# All checks and tests. Tests that need a cluster run if KUBECONFIG is set and are skipped otherwise.
test: lint docs-build unit integration

# Tests that are too slow for "make test", such as the commands of the README, long runs and data with millions of rows.
test-long: $(VENV)/.dev
	@.ci/part test-long $(BIN)/pytest -m long --timeout 7200 tests

unit: $(VENV)/.dev
	@.ci/part unit $(PYTEST) tests/unit

integration: $(VENV)/.dev
	@.ci/part integration $(PYTEST) tests/integration tests/cluster

# Needs a cluster in KUBECONFIG that can pull the images of "make images", and helm and kubectl on PATH.
# The variable RERUN adds pytest options, such as --last-failed.
cluster-test: $(VENV)/.dev
	@.ci/part cluster-test $(BIN)/pytest tests/cluster --durations 15 --durations-min 10 $(RERUN)

lint: $(VENV)/.dev
	@.ci/part lint sh -c '$(BIN)/ruff check $(SOURCES) && $(BIN)/ruff format --check $(SOURCES) && $(BIN)/mypy && $(BIN)/lint-imports'

# Serves the documentation at http://127.0.0.1:8001.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

docs-build: $(VENV)/.dev
	@NO_MKDOCS_2_WARNING=1 .ci/part docs-build $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.dev
	for file in tests/bench/bench_*.py; do $(BIN)/python $$file || exit 1; done

charts: $(VENV)/.dev
	$(BIN)/python charts/generate.py

# Example: make images REGISTRY=registry.example.com/editr1 TAG=0.1.0 TORCH=cuda
# TORCH is cuda or cpu. BUILD is the build command, such as docker build; buildah is used if it is installed.
REGISTRY ?= docker.io/editr1
TAG ?= dev
TORCH ?= cuda
BUILD ?= $(shell command -v buildah >/dev/null 2>&1 && echo buildah build --layers || echo docker build)
LABELS = --build-arg REVISION=$$(git rev-parse HEAD) --build-arg VERSION=$(TAG)
# One entry per stage: image, kind of the stage, base image, and extras of the editr1 package.
STAGES := curate:curate:base:curate \
	sft:sft:base-torch:verifier \
	gcpo:gcpo:base-torch:verifier \
	reward:serve:base-torch:verifier,serve \
	grpo:grpo:base-torch:editor,serve \
	evaluate:evaluate:base-torch:verifier,editor,serve,curate

images: $(VENV)/.all
	rm -rf build/image && $(BIN)/pip wheel --quiet --no-deps --wheel-dir build/image .
	$(BUILD) --target light -t $(REGISTRY)/base:$(TAG) -f images/base/Containerfile .
	$(BUILD) --target torch --build-arg TORCH=$(TORCH) -t $(REGISTRY)/base-torch:$(TAG) -f images/base/Containerfile .
	for stage in $(STAGES); do \
		set -- $$(echo $$stage | tr : ' '); \
		$(BUILD) --build-arg TITLE=editr1/$$1 --build-arg KIND=$$2 --build-arg BASE=$(REGISTRY)/$$3:$(TAG) --build-arg EXTRAS=$$4 \
			$(LABELS) -t $(REGISTRY)/$$1:$(TAG) -f images/stage/Containerfile . || exit 1; done
	$(BUILD) --build-arg BASE=$(REGISTRY)/base:$(TAG) $(LABELS) -t $(REGISTRY)/operator:$(TAG) -f images/operator/Containerfile .

lock: $(VENV)/.dev
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' | grep -v '^editr1' > requirements.lock

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed and none was found; set PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.all: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[all]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	touch $(VENV)/.all $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
