# Everything here needs only python3 (3.11 or later) and make: .venv is made on the way, by uv where it is installed.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 3
# Some environments forbid it, and each of the tests' many processes would compile everything anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-all bench bench-check bench-native lint format wheel clean

demo: .venv/ready  ## Two nodes, several writers, one of the nodes killed: what is lost? (Nothing.)
	@$(BIN)/replstore demo $(ARGS)

test: .venv/ready  ## One case of each test, on real databases, in about ten minutes
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -q $(ARGS)

test-all: export REPLSTORE_TESTS := all
test-all: test  ## Every case, in less than an hour

bench: .venv/ready  ## Measurements, about six minutes: docs/benchmarks.md (ARGS=--quick: one)
	@$(BIN)/python -m benchmarks.journal $(ARGS)

bench-check: .venv/ready  ## Measurements of the check, about twelve minutes: docs/benchmarks-check.md (ARGS=--quick: one)
	@$(BIN)/python -m benchmarks.check $(ARGS)

bench-native: .venv/bench  ## Measurements of native replication, about fifteen minutes: docs/benchmarks-native.md (ARGS=--quick: two)
	@$(BIN)/python -m benchmarks.native $(ARGS)

lint: .venv/ready  ## Style, types, and the order of the layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: .venv/ready  ## Bring the sources into form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

wheel: .venv/ready  ## dist/replstore-….whl
	@$(BIN)/python -m build --wheel

clean:
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made again when pyproject.toml changes; a set-up that broke off leaves no "ready" and is repeated.
.venv/ready: pyproject.toml
	@rm -f $@; echo "Setting up .venv (once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; make PYTHON=… names one")'
	@if command -v uv >/dev/null; then \
		uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" .venv && uv pip install --quiet --python $(BIN)/python -e '.[dev]'; \
	else \
		{ $(PYTHON) -m venv .venv >/dev/null || { $(PYTHON) -m venv --without-pip .venv && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } || \
			{ echo "$(PYTHON) can't make a virtual environment: install its package python3-venv, or uv" >&2; exit 1; }; } && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'; \
	fi
	@touch $@

# What is only measured beside.
.venv/bench: .venv/ready
	@if command -v uv >/dev/null; then uv pip install --quiet --python $(BIN)/python -e '.[bench]'; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'; fi
	@touch $@
