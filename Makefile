# Two commands on a fresh machine: `make demo` and `make test`. Everything lands in .venv and .demo, nothing elsewhere.
SHELL := /bin/bash
PYTHON ?= $(shell for python in python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
DEMO := .demo

.PHONY: help install demo test check docs constraints clean

help:  ## Show the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.runtime: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Mendstream needs Python 3.11 or 3.12, with venv (Debian: apt-get install python3 python3-venv)."; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version) (a minute on a first run) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "Installing what the tests need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(VENV)/.runtime  ## Set up the virtual environment

demo: $(VENV)/.runtime  ## Simulate a shop with faults, find the causes, write .demo/report.html
	@rm -rf $(DEMO)
	@$(BIN)/mendstream simulate --out $(DEMO)/shop --minutes 20 --rate 25 --seed 1 --faults demo
	@$(BIN)/mendstream replay $(DEMO)/shop --out $(DEMO)
	@echo
	@echo "Open $(DEMO)/report.html in a browser. What was really wrong is in $(DEMO)/shop/faults.jsonl."

test: $(VENV)/.dev  ## Run all checks and tests
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet . && echo "ruff: clean"
	@$(BIN)/mypy && $(BIN)/lint-imports --no-cache > /dev/null && echo "imports: one way"
	@$(BIN)/python -m pytest --durations=10

check: $(VENV)/.dev  ## Only the quick checks: format, lint, types, imports
	@$(BIN)/ruff check . && $(BIN)/ruff format --check --quiet . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache

docs: $(VENV)/.runtime  ## Make the generated documents anew
	@$(BIN)/mendstream config docs > docs/configuration.md
	@$(BIN)/python -m remediation.schemas

constraints: $(VENV)/.dev  ## Pin the versions that are installed, without addresses
	@$(BIN)/python -m pip freeze --exclude-editable | grep -vE '(@|^-)' | LC_ALL=C sort -f > constraints.txt

clean:  ## Remove what the targets above made
	@rm -rf $(VENV) $(DEMO) build *.egg-info
