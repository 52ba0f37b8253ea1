# Two commands matter: `make demo` and `make test`. Each makes .venv/ itself; Python 3.11+, make and a C
# compiler are all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
SOURCES := src tests benchmarks scripts

.PHONY: install demo test lint bench clean help
.DEFAULT_GOAL := help

help: ## say what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "meshwise needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 3; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing meshwise into $(VENV)/ ..."
	@$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "installing the test tools ..."
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@$(PIP) install -c constraints.txt -e '.[dev,bench]'
	@touch $@

install: $(VENV)/.runtime ## make .venv/ with the command .venv/bin/meshwise

demo: $(VENV)/.runtime ## a whole study on real proxies, under six minutes
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/demo.sh

lint: $(VENV)/.dev ## format, lint and type checks
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy

test: lint ## everything: format, lint, types, unit, property and end-to-end tests
	@$(BIN)/python -m pytest

bench: $(VENV)/.bench ## every figure in benchmarks/README.md, each pair of sides in one run
	@$(BIN)/python benchmarks/run_all.py

clean: ## remove .venv/ and what tools leave behind
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .hypothesis demo-study src/*.egg-info
