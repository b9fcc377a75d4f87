# Run everything a submission must pass.
check: lint types imports test

# Fast feedback: lint, types, and the tests that need no weights.
quick: lint types
    pytest -m "not slow and not gpu and not network and not weights" -n 2

lint:
    ruff check .
    ruff format --check .

types:
    mypy

imports:
    lint-imports

test:
    pytest

# Everything, the long tests too.
all:
    pytest -m "not gpu and not network"

# Speed and memory, as ratios in one run; writes JSON beside the table.
bench:
    python -m tests.benchmarks
