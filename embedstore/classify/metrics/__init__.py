"""How good predictions are: named metrics, each with a bootstrap interval.

The name always says which metric it is: accuracy and mean per-class recall differ by six points on Caltech-101.
"""

from embedstore.classify.metrics.figures import (
    ECE_BINS,
    Metric,
    accuracy,
    auroc,
    average_precision,
    confusion_matrix,
    expected_calibration_error,
    log_loss,
    macro_f1,
    mean_per_class_recall,
    recall_at_k,
    top5_accuracy,
    value,
)
from embedstore.classify.metrics.intervals import (
    REPLICATES,
    Difference,
    McNemar,
    bootstrap_interval,
    counts,
    interval,
    mcnemar,
    paired_bootstrap,
)
from embedstore.classify.metrics.ranking import ranked
from embedstore.classify.metrics.report import ClassRow, Report, Score, class_row, report

__all__ = [
    "ECE_BINS",
    "REPLICATES",
    "ClassRow",
    "Difference",
    "McNemar",
    "Metric",
    "Report",
    "Score",
    "accuracy",
    "auroc",
    "average_precision",
    "bootstrap_interval",
    "class_row",
    "confusion_matrix",
    "counts",
    "expected_calibration_error",
    "interval",
    "log_loss",
    "macro_f1",
    "mcnemar",
    "mean_per_class_recall",
    "paired_bootstrap",
    "ranked",
    "recall_at_k",
    "report",
    "top5_accuracy",
    "value",
]
