"""Training a backbone further on a label: a checkpoint and what is known of it. Nothing is embedded here.

The names come when they are used: torch is not imported before.
"""

from __future__ import annotations

from embedstore.finetuning.settings import AugmentationSettings, FinetuneSettings, parse_settings, run_digest

__all__ = ["AugmentationSettings", "FinetuneSettings", "parse_settings", "run_digest"]
