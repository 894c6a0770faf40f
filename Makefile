# All that it takes is make and Python 3.11 or later with venv. Each target makes its own .venv.
PYTHON      ?= python3
VENV        ?= .venv
PYTEST_ARGS ?=
# Processes that share the tests. They wait twice as long as they compute, so it is three for each of two cores.
# Tests that measure time run after them, alone. (pytest says 5 where no test was asked for.)
PYTEST_JOBS ?= 6
BENCH_ARGS  ?=
# The extras that the tests of this venv need; those of the web frameworks run in one of them.
EXTRAS      ?= dev,web

BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check --quiet
CODE := $(wildcard src tests examples bench pages)

# pyright takes the python that it finds on PATH; --verifytypes is deaf to its --pythonpath.
IN_VENV := PATH="$(abspath $(BIN)):$$PATH"

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

PRINT_STATES := import sys; from jobmill.states import page; sys.stdout.write(page())
GUARANTEES := docs/guarantees.md docs/guarantees.jsonl

PRINT_CLI := import sys; from jobmill.cli.reference import page; sys.stdout.write(page())

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check style types layers pages guarantees soak bench docs screens

help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## see an e-mail queue at work
	$(BIN)/python examples/email_queue.py

test: $(VENV)/.dev ## run the tests (PYTEST_ARGS="tests/unit -k backoff" for some)
	$(BIN)/python -m pytest -n $(PYTEST_JOBS) -m "not alone" $(PYTEST_ARGS) || test $$? -eq 5
	$(BIN)/python -m pytest -m alone $(PYTEST_ARGS) || test $$? -eq 5

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
	$(BIN)/python -c "$(PRINT_CLI)" | diff docs/cli.md -
	$(BIN)/python -m tests.guarantees check $(GUARANTEES)

guarantees: $(VENV)/.dev ## bring about each fault on each store, and print what came of it
	rm -f docs/guarantees.jsonl
	export JOBMILL_GUARANTEES=docs/guarantees.jsonl; named=$$($(BIN)/python -m tests.guarantees names); \
	  $(BIN)/python -m pytest -n $(PYTEST_JOBS) -m "not alone" $$named $(PYTEST_ARGS) && \
	  $(BIN)/python -m pytest -m alone $$named $(PYTEST_ARGS)
	$(BIN)/python -m tests.guarantees print docs/guarantees.jsonl > docs/guarantees.md.new
	mv docs/guarantees.md.new docs/guarantees.md

soak: $(VENV)/.dev ## run simulations, store tests, faults and commands for long, with thousands of seeds
	JOBMILL_SOAK=1 $(BIN)/python -m pytest -n $(PYTEST_JOBS) --timeout=7200 $(wildcard tests/sim tests/stores tests/faults tests/cli tests/dashboard tests/browser tests/api/running/test_monitor_cost.py) $(PYTEST_ARGS)

bench: $(VENV)/.dev ## measure against bare loops and peers, as ratios of one run, and print docs/benchmarks.md
	$(BIN)/python -m bench --peers --out bench/results/latest.json $(BENCH_ARGS)
	$(BIN)/python -m bench.report bench/results/latest.json

docs: $(VENV)/.dev $(VENV)/.docs ## print again the pages that come from code, and build the site into build/site
	$(BIN)/python -c "$(PRINT_STATES)" > docs/states.md.new
	mv docs/states.md.new docs/states.md
	$(BIN)/python -c "$(PRINT_CLI)" > docs/cli.md.new
	mv docs/cli.md.new docs/cli.md
	$(BIN)/python -m tests.guarantees print docs/guarantees.jsonl > docs/guarantees.md.new
	mv docs/guarantees.md.new docs/guarantees.md
	$(BIN)/python -m pages

screens: $(VENV)/.dev ## take the screens of the dashboard in docs/screens again, with the system's Chromium
	$(BIN)/python -m tests.browser.screens

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jobmill needs Python 3.11 or later; say which: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "no venv in $(PYTHON); on Debian: apt install python3-venv" >&2; exit 1; }

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(PIP) install --no-compile --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(PIP) install --no-compile --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/.dev
	$(PIP) install --editable '.[docs]'
	@touch $@
