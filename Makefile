# `make demo` and `make test` do all the set-up themselves; see scripts/setup.
#
#   make test PYTEST_ARGS='tests/unit -k schedule'
#   make test PYTHON=/opt/python3.13/bin/python3

PYTEST_ARGS ?=
PYTHON ?=
export PYTHON

BIN := .venv/bin
LOCKED_GROUPS := dev coverage dist docs lock typing
# percent of lines and branches that the unit tests of the pure packages cover at least; other tests cover more of planning
FLOORS := delivery=94 model=90 parking=90 picture=98 planning=80 topology=97

.DEFAULT_GOAL := help
.PHONY: help demo test check lint typing coverage format docs dist lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo:  ## see messages succeed, be retried, parked and replayed, on a private RabbitMQ
	@scripts/setup
	@$(BIN)/python examples/demo.py

test:  ## all tests, on a private RabbitMQ or on those that AMQPFLOW_TEST_URLS names
	@scripts/setup
	$(BIN)/python -m pytest -n auto $(PYTEST_ARGS)

check: lint  ## lint, types and the direction of imports
	$(BIN)/mypy
	$(BIN)/lint-imports

lint:  ## ruff: rules and format
	@scripts/setup python
	$(BIN)/ruff check
	$(BIN)/ruff format --check

typing:  ## the public names as a type checker sees them, by mypy and by pyright
	@scripts/setup python typing
	$(BIN)/mypy tests/typing
	$(BIN)/pyright

coverage:  ## what the unit tests cover of the pure packages; fails below the floor
	@scripts/setup python coverage
	$(BIN)/coverage run -m pytest -q $(foreach floor,$(FLOORS),tests/unit/$(firstword $(subst =, ,$(floor)))) \
	  --deselect tests/unit/topology/test_document.py::test_hostile_files_end_soon_with_an_error  # it measures time
	$(BIN)/coverage report
	@for floor in $(FLOORS); do \
	  printf '%s, covered: ' "$$floor"; \
	  $(BIN)/coverage report --format=total --include="amqpflow/$${floor%=*}/*" --fail-under="$${floor#*=}" || exit 1; \
	done

docs:  ## the documentation as a site, in build/site; fails when a link leads nowhere
	@scripts/setup python docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

dist:  ## the sdist and the wheel, in dist/, and the tests of both
	@scripts/setup python dist
	scripts/check-dist

lock:  ## the newest versions for development, into constraints.txt
	@scripts/setup python lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras $(LOCKED_GROUPS:%=--group %) \
	  --annotation-style line --custom-compile-command 'make lock' pyproject.toml -o constraints.txt

format:  ## fix what ruff can
	@scripts/setup python
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## remove .venv and every cache
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -prune -exec rm -rf {} +
