"""Frozen networks with their own preprocessing: load a recipe, embed images and texts.

``load`` turns a :class:`~embedstore.space.Recipe` into a backbone. ``resolve_name`` and ``list_backbones`` answer from
the shipped registry. Nothing here imports torch before a network is loaded.
"""

from embedstore.backbones.loading import load
from embedstore.backbones.registry import BackboneInfo, list_backbones, resolve_name

__all__ = ["BackboneInfo", "list_backbones", "load", "resolve_name"]
