"""How good predictions are: named metrics, each with a bootstrap interval.

The name always says which metric it is: accuracy and mean per-class recall differ by six points on Caltech-101.
"""

from embedstore.classify.metrics.intervals import (
    DEFAULT_REPLICATES,
    McNemarResult,
    MetricDifference,
    bootstrap_counts,
    bootstrap_interval,
    mcnemar,
    paired_bootstrap,
    percentile_interval,
)
from embedstore.classify.metrics.point_metrics import (
    ECE_BINS,
    MetricName,
    accuracy,
    auroc,
    average_precision,
    compute_metric,
    confusion_matrix,
    expected_calibration_error,
    log_loss,
    macro_f1,
    mean_per_class_recall,
    recall_at_k,
    top5_accuracy,
)
from embedstore.classify.metrics.ranking import ranking_metrics
from embedstore.classify.metrics.report import (
    ClassificationReport,
    ClassMetrics,
    MetricEstimate,
    class_metrics,
    classification_report,
)

__all__ = [
    "DEFAULT_REPLICATES",
    "ECE_BINS",
    "ClassMetrics",
    "ClassificationReport",
    "McNemarResult",
    "MetricDifference",
    "MetricEstimate",
    "MetricName",
    "accuracy",
    "auroc",
    "average_precision",
    "bootstrap_counts",
    "bootstrap_interval",
    "class_metrics",
    "classification_report",
    "compute_metric",
    "confusion_matrix",
    "expected_calibration_error",
    "log_loss",
    "macro_f1",
    "mcnemar",
    "mean_per_class_recall",
    "paired_bootstrap",
    "percentile_interval",
    "ranking_metrics",
    "recall_at_k",
    "top5_accuracy",
]
