# Every target builds its own environment in .venv, from nothing: with uv where present, else with venv and pip.
# PYTHON=/path/to/python chooses the interpreter (3.11 or newer).

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
UV := $(shell command -v uv 2>/dev/null)

# The first candidate that runs and is new enough; a name on PATH alone proves nothing.
OLDEST := import sys; sys.exit(sys.version_info < (3, 11))
CANDIDATES = $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python)
FIND_PYTHON = for p in $(CANDIDATES); do "$$p" -c '$(OLDEST)' 2>/dev/null && { echo "$$p"; exit; }; done

# Beside Airflow and this package; FAB is no dependency of it. All that tests/conftest.py imports.
FAB := apache-airflow-providers-fab hypothesis pytest

# Some containers set it. The tests start hundreds of processes, and each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo screenshots chaos cluster batch-proof bench fab matrix load docs test quick mutants fuzz lint build release clean

help: ## Show this help
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(STAMP) ## Run an example Dag in a real Airflow, in .demo/; EXAMPLE=daily chooses another
	@$(BIN)/python -m demo $(EXAMPLE)

screenshots: $(STAMP) ## Take the pictures in docs/images/ of a real Airflow, 2 minutes; needs Chromium
	@$(BIN)/python -m demo.screenshots

chaos: $(STAMP) ## Kill a real Airflow's processes at every bad moment, 10 minutes; ARGS="submitted" plays one row
	@$(BIN)/python -m tests.chaos $(ARGS)

cluster: $(STAMP) ## Kill the parts of an Airflow under Celery, 30 minutes; needs Postgres and Redis; ARGS="Redis" plays two rows
	@$(BIN)/python -m tests.cluster $(ARGS)

batch-proof: $(STAMP) ## Batches of 1,000 and 10,000 images, killed and weighed, 15 minutes
	BITDANCE_BATCH_PROOF=1 $(BIN)/python -m pytest -rA tests/system/test_batch.py tests/integration/test_batch_engine.py

bench: $(STAMP) ## Measure it against what you would take instead, an hour; ARGS="2 4" plays two rows
	@$(BIN)/python -m benchmarks $(ARGS)

fab: $(STAMP) ## Ask the Images tab as users of FAB's auth manager, in .fab/, 3 minutes
	@[ -x .fab/bin/python ] || $(BIN)/python -m venv .fab
	@.fab/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . $(FAB)
	.fab/bin/python -m pytest tests/integration/test_plugin_server.py

matrix: $(STAMP) ## Run the tests on each Airflow and Python that is here, an hour; ARGS="3.1.8-3.11" plays one cell
	@$(BIN)/python -m tests.matrix $(ARGS)

load: $(STAMP) ## Count the local service's requests a second; needs wrk
	@benchmarks/local_service/run.sh $(BIN)/python

test: $(STAMP) ## Run the tests, 13 minutes on two cores; ARGS="tests/unit -n 0 -x" goes to pytest
	$(BIN)/python -m pytest -n 3 --no-loadscope-reorder $(ARGS)

quick: $(STAMP) ## Run the unit and contract tests, while you write; ARGS="-k budget" goes to pytest
	$(BIN)/python -m pytest -n 2 tests/unit tests/contract $(ARGS)

mutants: $(STAMP) ## Change one line at a time and see whether the tests notice; ARGS="budget" plays a part
	@$(BIN)/python -m tests.mutants $(ARGS)

fuzz: $(STAMP) ## Mutate records, answers, items, URLs, pictures, 10 minutes; ARGS="--minutes 60 pictures"
	@$(BIN)/python -m tests.fuzz $(ARGS)

docs: $(STAMP) ## Build the documentation's site into build/docs, half a minute; warnings are errors
	rm -rf build/docs
	AIRFLOW_HOME=$(CURDIR)/build/airflow AIRFLOW__LOGGING__LOGGING_LEVEL=WARNING \
	  $(BIN)/python -m sphinx -q -W --keep-going -c docs . build/docs

lint: $(STAMP) ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

build: $(STAMP) ## Build the wheel and the source distribution into dist/
	rm -rf dist
	$(BIN)/python -m build $(if $(UV),--installer uv)

release: $(STAMP) ## Check what would be published, and make a first image of it in empty environments, 25 minutes
	@$(BIN)/python -m tests.release

clean: ## Remove what the other targets made
	rm -rf $(VENV) .fab .demo .matrix .release build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(STAMP): pyproject.toml constraints.txt
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then \
	  echo 'No Python 3.11 or newer found (tried: $(CANDIDATES)). Try: make PYTHON=/path/to/python' >&2; exit 1; \
	fi; \
	echo "Building $(VENV) with $$python, about a minute"; rm -rf $(VENV); \
	if [ -n "$(UV)" ]; then \
	  "$(UV)" venv --quiet --no-python-downloads --python "$$python" $(VENV) && \
	  "$(UV)" pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else \
	  "$$python" -m venv $(VENV) && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; \
	fi
	@touch $@
