"""The quality of predictions: named metrics, each with a 95% interval.

The name always says which metric it is: accuracy and mean per-class recall differ by six points on Caltech-101.
"""

from embedstore.classify.metrics.calibration_error import (
    CALIBRATION_ERROR,
    CalibrationError,
    ReliabilityBin,
    calibration_error,
)
from embedstore.classify.metrics.intervals import MIN_POSITIVES, metric_interval
from embedstore.classify.metrics.paired import McNemarResult, MetricDifference, mcnemar
from embedstore.classify.metrics.point_metrics import (
    ECE_BINS,
    MetricName,
    compute_metric,
    confusion_matrix,
)
from embedstore.classify.metrics.ranking import ranking_metrics
from embedstore.classify.metrics.report import (
    MIN_ECE_ROWS,
    ClassificationReport,
    ClassMetrics,
    MetricEstimate,
    calibration_estimate,
    class_metrics,
    classification_report,
)
from embedstore.classify.metrics.resampling import DEFAULT_REPLICATES, bootstrap_counts, logit_interval

__all__ = [
    "CALIBRATION_ERROR",
    "DEFAULT_REPLICATES",
    "ECE_BINS",
    "MIN_ECE_ROWS",
    "MIN_POSITIVES",
    "CalibrationError",
    "ClassMetrics",
    "ClassificationReport",
    "McNemarResult",
    "MetricDifference",
    "MetricEstimate",
    "MetricName",
    "ReliabilityBin",
    "bootstrap_counts",
    "calibration_error",
    "calibration_estimate",
    "class_metrics",
    "classification_report",
    "compute_metric",
    "confusion_matrix",
    "logit_interval",
    "mcnemar",
    "metric_interval",
    "ranking_metrics",
]
