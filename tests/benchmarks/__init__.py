"""Speed and memory, as ratios to a peer or a limit in the same run. Run by hand: ``python -m tests.benchmarks``."""
