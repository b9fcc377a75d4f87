"""The backbone of a planned space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedstore.backbones.loading import resolve_devices
from embedstore.modality import Modality
from embedstore.operations.session import Session

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone
    from embedstore.backbones.sequence import SequenceBackbone
    from embedstore.storage.spaces import RecipeSpace


def load_planned(session: Session, space: RecipeSpace) -> list[Backbone | SequenceBackbone]:
    """Return the backbone of a planned space, once per device, checked to be the one that the space was made with."""
    devices = resolve_devices(session.options.device)
    if space.space.modality is not Modality.IMAGE:
        devices = devices[:1]
    return [session.load_space(space, device) for device in devices]
