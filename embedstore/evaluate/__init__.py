"""Judging heads on cached features: splits that cannot leak, figures with intervals, comparisons, label work."""

from embedstore.evaluate.judge import How, judge, judge_fitted
from embedstore.evaluate.outcome import Evaluation, Mistake
from embedstore.evaluate.words import judge_zero_shot, zero_shot_head

__all__ = ["Evaluation", "How", "Mistake", "judge", "judge_fitted", "judge_zero_shot", "zero_shot_head"]
