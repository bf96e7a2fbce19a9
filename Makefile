# Only make, a POSIX shell and Python 3.11 to 3.13 are assumed. Another interpreter: make PYTHON=python3.12 test
PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
DEMO ?= demo
SELECT ?= not slow
CORES ?= 2
BENCH ?= bench
CODE = nightsift subtraction models tasks flows

# BLAS threads fight over the cores with the worker processes, and one thread is faster for our small solves.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export TF_CPP_MIN_LOG_LEVEL ?= 3
export DO_NOT_TRACK ?= 1
export ORT_DISABLE_TELEMETRY ?= 1
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false

.PHONY: help install demo test test-all lint check bench figures format docs manual lock clean

help:
	@echo "make demo     simulate a survey, build its templates, run its night, score it, write its report (folder $(DEMO)/)"
	@echo "make test     lint, format check, types, import contracts, docstrings and the test suite"
	@echo "make test-all the same with the tests that take minutes: long nights of real frames"
	@echo "make bench    measure speed and quality, other codes included where installed (folder $(BENCH)/)"
	@echo "make figures  draw docs/figures, with the table of make bench where there is one"
	@echo "make format   format the code and sort its imports"
	@echo "make docs     write docs/schema.md and infra/prefect.yaml again from the code"
	@echo "make manual   build the manual with its API pages and executed notebooks (docs/_build/html), offline"
	@echo "make lock     resolve the dependencies again into requirements.lock (needs uv)"
	@echo "make clean    remove the environment, caches and the demo"

install: $(STAMP)

# --no-deps: the lock is complete, and the resolver of older pips trips over extras when hashes are required.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "nightsift needs Python 3.11, 3.12 or 3.13; $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12 ..." % v)'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) comes without venv: install it (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "== installing the locked dependencies into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m pip check --quiet --disable-pip-version-check
	@touch $@

demo: $(STAMP)
	@echo "== compile" && $(BIN)/nightsift compile
	@echo "== simulate" && $(BIN)/nightsift simulate $(DEMO) --preset demo
	@echo "== templates" && $(BIN)/nightsift template $(DEMO)/nightsift.toml
	@echo "== night" && $(BIN)/nightsift night $(DEMO)/nightsift.toml || [ $$? -eq 1 ]
	@echo "== score" && $(BIN)/nightsift score $(DEMO)/nightsift.toml
	@echo "== report" && $(BIN)/nightsift report $(DEMO)/nightsift.toml
	@echo "next: docs/quickstart.md, on your own frames; $(BIN)/nightsift --help lists all commands"

lint: $(STAMP)
	@echo "== ruff check" && $(BIN)/ruff check .
	@echo "== ruff format --check" && $(BIN)/ruff format --check .
	@echo "== mypy" && $(BIN)/mypy
	@echo "== import contracts" && $(BIN)/lint-imports

test: lint
	@echo "== compile" && $(BIN)/nightsift compile
	@echo "== pytest, docstrings (numpydoc) among it" && $(BIN)/python -m pytest -q -n $(CORES) --dist loadfile -m "$(SELECT)"

test-all:
	@$(MAKE) test SELECT=

bench: $(STAMP)
	@for name in operations/startup subtraction/stages operations/pipeline; do \
		echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done
	@echo "== comparison" && $(BIN)/python benchmarks/subtraction/comparison.py --seed 101 --pairs $(BENCH)/pairs --out $(BENCH)

figures: $(STAMP)
	@$(BIN)/python benchmarks/subtraction/figures.py --pairs $(BENCH)/pairs \
		$(if $(wildcard $(BENCH)/table.json),--comparison $(BENCH)/table.json)

format: $(STAMP)
	@$(BIN)/ruff check --fix --select I . ; $(BIN)/ruff format .

docs: $(STAMP)
	@$(BIN)/python -m nightsift.cli.schema_docs docs/schema.md
	@$(BIN)/python -P -m flows.deployments infra/prefect.yaml

# All notebooks run; a warning is an error.
manual: $(STAMP)
	@echo "== manual" && NIGHTSIFT_NOTEBOOKS=force $(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# The resolver writes no index address into the file; a hash for every file makes it safe with any mirror.
lock:
	uv pip compile --universal --python-version 3.11 --fork-strategy fewest --all-extras --generate-hashes --no-header \
		--upgrade pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) $(DEMO) $(BENCH) docs/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(CODE) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
