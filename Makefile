# make run: the whole way on the embedded models, ending in one table and reports/index.html
# make test, make lint: what CI runs;  make bench: timings, each beside its peer or physical limit

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

run: $(INSTALLED)
	$(BIN)/quantbench report

test: lint
	$(BIN)/python -m pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

clean:
	rm -rf .venv variants runs build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find reports -mindepth 1 ! -name README.md -delete

# The stamp is newer than what decides the environment, so a second run installs nothing and needs no network.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

.PHONY: run test lint bench clean
