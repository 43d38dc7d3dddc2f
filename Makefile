# `make run` and `make test` are all that a fresh Debian machine needs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?=
# Tests that run beside each other: most of them wait most of the time.
WORKERS ?= 2

.PHONY: run s3 test check format lint types bench soak lock clean packages-run packages-test

run: $(VENV)/run.stamp packages-run
	$(BIN)/switchboard serve $(if $(CONFIG),--config $(CONFIG))

test: $(VENV)/dev.stamp packages-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not soak and not alone"
	$(BIN)/python -m pytest -m "not soak and alone"

check: format lint types test

format: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .

types: $(VENV)/dev.stamp
	$(BIN)/mypy

bench: $(VENV)/dev.stamp packages-test
	$(BIN)/python -m tests.bench

soak: $(VENV)/dev.stamp packages-test
	SWITCHBOARD_SOAK=1 $(BIN)/python -m pytest -m "soak or not soak"

packages-run:
	@sh config/packages.sh run

packages-test:
	@sh config/packages.sh test

# The stamps make a second call cheap: they are newer than the lock they were made from.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: apt-get install python3.11 python3.11-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || sh config/packages.sh venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@ $(VENV)/run.stamp

# What uploads to S3 need, which is not installed otherwise.
s3: $(VENV)/run.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-s3.txt

lock: $(VENV)/dev.stamp
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --no-header --no-annotate --extra build -o requirements.txt pyproject.toml
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --no-header --no-annotate --extra build --extra dev --extra transcribe --extra s3 -c requirements.txt -o requirements-dev.txt pyproject.toml
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --no-header --no-annotate --extra build --extra s3 -c requirements-dev.txt -o requirements-s3.txt pyproject.toml

clean:
	rm -rf $(VENV) build switchboard.egg-info .mypy_cache .ruff_cache
