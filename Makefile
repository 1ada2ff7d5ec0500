# `make demo` and `make test` do all the set-up themselves; see scripts/setup.
#
#   make test PYTEST_ARGS='tests/unit -k schedule'
#   make test PYTHON=/opt/python3.13/bin/python3

PYTEST_ARGS ?=
PYTHON ?=
export PYTHON

BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check lint format clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo:  ## see messages succeed, be retried, parked and replayed, on a private RabbitMQ
	@scripts/setup
	@$(BIN)/python examples/demo.py

test:  ## all tests, on a private RabbitMQ or on those that AMQPFLOW_TEST_URLS names
	@scripts/setup
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

check: lint  ## lint, types and the direction of imports
	$(BIN)/mypy
	$(BIN)/lint-imports

lint:  ## ruff: rules and format
	@scripts/setup python
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format:  ## mend what ruff can
	@scripts/setup python
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## remove .venv and every cache
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -prune -exec rm -rf {} +
