"""Promised against delivered: simulations of every statement with a level, ``python -m tools.evaluation_promises``.

The command writes the table into ``docs/evaluation.md``. The tests run the same simulations with fewer repetitions.
"""
