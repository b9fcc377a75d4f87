# Run everything a submission must pass.
check: lint types imports test

# Fast feedback: lint, types, and the tests of the rooms that need no weights.
quick: lint types
    pytest -n 2 tests/test_store.py tests/test_shard.py tests/test_filter.py tests/test_exact.py tests/test_splits.py tests/test_decode.py tests/test_preprocess.py tests/test_source.py tests/test_source_manifest.py tests/test_metrics.py tests/test_golden.py

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
