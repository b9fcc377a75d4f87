"""Judging heads on cached features: splits that cannot leak, figures with intervals, comparisons, label work."""

from embedstore.classify.evaluation.evaluation import Evaluation, Mistake
from embedstore.classify.evaluation.holdout import How, judge, judge_fitted
from embedstore.classify.evaluation.text_classifiers import judge_zero_shot, zero_shot_head

__all__ = ["Evaluation", "How", "Mistake", "judge", "judge_fitted", "judge_zero_shot", "zero_shot_head"]
