"""The quality of predictions: named metrics, each with a bootstrap interval.

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
    compute_metric,
    confusion_matrix,
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
    "bootstrap_counts",
    "bootstrap_interval",
    "class_metrics",
    "classification_report",
    "compute_metric",
    "confusion_matrix",
    "mcnemar",
    "paired_bootstrap",
    "percentile_interval",
    "ranking_metrics",
]
