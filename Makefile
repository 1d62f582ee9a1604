# `make demo` trains the quickstart grid, `make test` runs the tests. Both create the environment first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo check test test-slow test-slurm faults lint format golden docs pictures bench bench-slurm clean

help: ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED) ## train the quickstart grid on this machine and print its budget table
	$(BIN)/alphagrid submit specs/quickstart.yaml --wait
	$(BIN)/alphagrid report quickstart

check: $(INSTALLED) ## the fast loop: style, the direction of imports, and the tests that need no torch
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p tests.no_torch -q -r fE -n 2

test: $(INSTALLED) ## the fast tests
	$(BIN)/python -m pytest -n 2

test-slow: $(INSTALLED) ## the tests that take more than a few seconds each
	$(BIN)/python -m pytest -m slow -n 2

test-slurm: $(INSTALLED) ## the tests on a real Slurm, which is installed if it is missing
	tests/slurm/install
	ALPHAGRID_REQUIRE_SLURM=1 $(BIN)/python -m pytest -m slurm tests/slurm -n 2 --dist loadfile

faults: $(INSTALLED) ## write docs/faults.md from the tests that cause the faults (on a real Slurm)
	tests/slurm/install
	ALPHAGRID_REQUIRE_SLURM=1 ALPHAGRID_FAULT_TABLE=docs/faults.md $(BIN)/python -m pytest -m slurm tests/slurm

lint: $(INSTALLED) .typecheck/alphagrid ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=.typecheck $(BIN)/mypy -p alphagrid.analysis -p alphagrid.cluster_profiles -p alphagrid.jobs \
	  -p alphagrid.slurm -p alphagrid.store -p alphagrid.trainer -m alphagrid.cli -m alphagrid.documents -m alphagrid.printable -m alphagrid.problems -m alphagrid.terminal \
	  -m alphagrid.errors
	MYPYPATH=.typecheck $(BIN)/mypy tests benchmarks docs
	$(BIN)/lint-imports

# The root of the repository is the package, whatever the clone is called. The link lets mypy find it as `alphagrid`.
.typecheck/alphagrid:
	mkdir -p .typecheck
	ln -sfn .. $@

format: $(INSTALLED) ## format the code and sort the imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: $(INSTALLED) ## record the golden runs again (then say why in the changelog)
	$(BIN)/python tests/golden/record.py --write

docs: $(INSTALLED) ## write docs/reference/ from the code
	$(BIN)/python docs/reference.py

pictures: $(INSTALLED) ## draw the README's pictures again (trains the quickstart grid)
	$(BIN)/python docs/pictures.py

bench: $(INSTALLED) ## print the benchmarks' ratios
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.dry_run
	$(BIN)/python -m benchmarks.journal
	$(BIN)/python -m benchmarks.evaluation_cadence

bench-slurm: $(INSTALLED) ## print the benchmarks on a real Slurm (needs root and Slurm's packages: tests/slurm/install)
	$(BIN)/python -m benchmarks.slurm_submit
	$(BIN)/python -m benchmarks.status
	$(BIN)/python -m benchmarks.stop_request

clean: ## remove the environment and the tools' caches
	rm -rf $(VENV) .typecheck build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
