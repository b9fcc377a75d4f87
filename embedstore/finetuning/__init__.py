"""Fine-tuning of a backbone on a label: settings, training, checkpoint, advice. Nothing is embedded here.

Only :mod:`settings`, :mod:`history` and :mod:`advice` can be imported without torch.
"""

from embedstore.finetuning.settings import AugmentationSettings, FinetuneSettings

__all__ = ["AugmentationSettings", "FinetuneSettings"]
