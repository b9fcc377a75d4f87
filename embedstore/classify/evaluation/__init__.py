"""Evaluate heads on cached features: splits without leaks, metrics with intervals, comparisons, label errors."""

from typing import TypeAlias

from embedstore.classify.evaluation.evaluation import Evaluation, Mistake
from embedstore.classify.evaluation.holdout import evaluate_fitted, evaluate_head
from embedstore.classify.evaluation.regression.evaluation import RegressionEvaluation
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.classify.evaluation.text_classifiers import evaluate_zero_shot

ProbeResult: TypeAlias = Evaluation | RegressionEvaluation
"""What ``probe`` returns: classes are evaluated as classes, numbers as numbers."""

__all__ = [
    "Evaluation",
    "EvaluationSettings",
    "Mistake",
    "ProbeResult",
    "RegressionEvaluation",
    "evaluate_fitted",
    "evaluate_head",
    "evaluate_zero_shot",
]
