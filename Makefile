# The verbs of this project. `make` lists them; each makes the environment in .venv first if it is missing.
.DEFAULT_GOAL := help
.PHONY: help setup demo dev check format lint types imports unit test contract conformance fault histories sim docker bench docs lock clean

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
ARGS ?=
# Most tests wait more than they work. The long files go first, so that no process is left with one at the end.
SIDE_BY_SIDE := -n 4 --dist loadfile --no-loadscope-reorder

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup:
	@scripts/bootstrap

demo: setup ## start a cluster, deploy to it, show it (CI=1 ends by itself)
	@$(BIN)/python scripts/demo.py $(if $(CI),--ci)

dev: setup ## run a whole cluster in one process
	$(BIN)/corral dev $(ARGS)

check: lint types imports unit ## format, lint, strict types, import contracts, layout, unit tests

format: setup ## rewrite the code in the project's format
	$(BIN)/ruff format src tests scripts examples
	$(BIN)/ruff check --fix src tests scripts examples

lint: setup
	$(BIN)/ruff format --check src tests scripts examples
	$(BIN)/ruff check src tests scripts examples

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports --no-logo

unit: setup
	$(PYTEST) -q -n auto --dist loadfile tests/unit $(ARGS)

test: setup ## all tests but the long ones: unit, contract, conformance and a short slice of each long suite
	$(PYTEST) -m "not slow" $(SIDE_BY_SIDE) tests/docker tests/conformance tests/contract tests/fault tests/sim tests/bench tests/unit $(ARGS)

contract: setup ## one suite for every implementation of a contract
	$(PYTEST) tests/contract $(ARGS)

conformance: setup ## foreign clients against the real server
	$(PYTEST) tests/conformance $(ARGS)

fault: setup ## hurt a real cluster of three hosts in every way and print the table (ARGS=--write for the docs)
	$(BIN)/python -m tests.fault.real $(ARGS)

histories: COUNT ?= 10000
histories: setup ## ten thousand histories (COUNT=N) of whole clusters in virtual time, with everything that may break
	$(BIN)/python -m corral.sim.histories --count $(COUNT) --seconds 10 $(ARGS)

sim: setup ## long seeded runs in virtual time
	$(PYTEST) tests/sim $(ARGS)

docker: setup ## everything that needs a real Docker Engine
	$(PYTEST) tests/docker tests/contract -m docker $(ARGS)

bench: setup ## the numbers, with their budgets
	$(BIN)/python -m tests.bench $(ARGS)

docs: setup ## check that the docs tell what the code does
	$(PYTEST) -q tests/unit/architecture $(ARGS)

lock: ## resolve the requirements anew
	uv pip compile -q pyproject.toml --group dev --extra speed --generate-hashes --no-header --no-annotate --upgrade -o requirements/dev.txt

clean: ## remove what was built
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist build
