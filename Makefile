# Every target works after a bare `git clone`: the first one that needs Python sets up .venv with venv and pip.
# GNU make 3.81, as macOS ships it, is enough.

PYTHON ?= python3
PAPER ?= rumelhart1986
ARGS ?=
WORKERS ?= auto

BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help reproduce record test check bench clean

help: ## show this list
	@awk -F ': [^#]*## ' '/^[a-z]+: [^#]*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  PAPER=NAME picks the paper (now $(PAPER)), ARGS='...' is passed on: make reproduce ARGS='--seeds 10'"

reproduce: $(READY) ## run a paper and print what it published, what we measured, and the verdicts
	@$(BIN)/reimpl reproduce $(PAPER) $(ARGS)

record: $(READY) ## promote a paper's records to its measured.jsonl and rebuild its README table
	@$(BIN)/reimpl record $(PAPER) $(ARGS)

test: $(READY) ## run the tests
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)

check: $(READY) ## check format, lint, types, import layers and spelling
	@$(BIN)/ruff format --check --quiet . || { echo "check: not formatted; run: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/typos

bench: $(READY) ## time the harness against plain code, as ratios
	@$(BIN)/python -m pytest -q -p no:xdist --timeout 0 tests/benchmarks --benchmark-columns=median,rounds $(ARGS)

clean: ## remove .venv and the caches; records in runs/ stay
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache

$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; install Python 3.11 or newer, or say PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old; name a Python 3.11 or newer: make PYTHON=python3.12" >&2; exit 1; }
	@echo "make: setting up .venv, once; the downloads take a few minutes" >&2
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)
