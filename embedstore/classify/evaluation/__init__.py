"""Judging heads on cached features: splits that cannot leak, figures with intervals, comparisons, label work."""

from embedstore.classify.evaluation.evaluation import Evaluation, Mistake
from embedstore.classify.evaluation.holdout import EvaluationSettings, evaluate_fitted, evaluate_head
from embedstore.classify.evaluation.text_classifiers import encode_zero_shot_head, evaluate_zero_shot

__all__ = [
    "Evaluation",
    "EvaluationSettings",
    "Mistake",
    "encode_zero_shot_head",
    "evaluate_fitted",
    "evaluate_head",
    "evaluate_zero_shot",
]
