# All that it takes is make and Python 3.11 or later with venv. Each target makes its own .venv.
PYTHON      ?= python3
VENV        ?= .venv
PYTEST_ARGS ?=
BENCH_ARGS  ?=

BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check --quiet
CODE := $(wildcard src tests examples bench)

# pyright takes the python that it finds on PATH; --verifytypes is deaf to its --pythonpath.
IN_VENV := PATH="$(abspath $(BIN)):$$PATH"

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

PRINT_STATES := import sys; from jobmill.states import page; sys.stdout.write(page())

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check style types layers pages soak bench docs

help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## see an e-mail queue at work
	$(BIN)/python examples/email_queue.py

test: $(VENV)/.dev ## run the tests (PYTEST_ARGS="tests/unit -k backoff" for some)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: style types layers pages ## format, lint, types, layers and printed pages (make -k check: all that fail)

style: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy $(CODE)
	$(IN_VENV) pyright
	$(IN_VENV) pyright --verifytypes jobmill --ignoreexternal

layers: $(VENV)/.dev
	$(BIN)/lint-imports

pages: $(VENV)/.dev
	$(BIN)/python -c "$(PRINT_STATES)" | diff docs/states.md -

soak: $(VENV)/.dev ## run simulations and store tests for long, with thousands of seeds
	JOBMILL_SOAK=1 $(BIN)/python -m pytest --timeout=7200 $(wildcard tests/sim tests/stores) $(PYTEST_ARGS)

bench: $(VENV)/.dev ## measure against bare loops over the same drivers, as ratios (BENCH_ARGS="--jobs 5000")
	$(BIN)/python -m bench $(BENCH_ARGS)

docs: $(VENV)/.dev ## print again the pages that come from code
	$(BIN)/python -c "$(PRINT_STATES)" > docs/states.md.new
	mv docs/states.md.new docs/states.md

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jobmill needs Python 3.11 or later; say which: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "no venv in $(PYTHON); on Debian: apt install python3-venv" >&2; exit 1; }

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[dev]'
	@touch $@
