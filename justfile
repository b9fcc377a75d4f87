# Run everything a submission must pass.
check: lint types imports test

# Fast feedback: lint, types, and the tests of the rooms that need no weights.
quick: lint types
    pytest -n 2 tests/storage/test_commit.py tests/storage/test_shard.py tests/storage/test_filters.py tests/search/test_top_k.py tests/classify/test_splits.py tests/media/test_decode.py tests/media/test_preprocess.py tests/sources/test_folder.py tests/sources/test_manifest.py tests/classify/test_metrics.py tests/storage/test_golden.py

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
