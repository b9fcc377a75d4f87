"""Which kind of network a folder holds, and who loads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedstore.backbones.error_text import join_names
from embedstore.backbones.transformers_models.folder import ModelFolder, open_folder, require_transformers
from embedstore.errors import BadBackbone
from embedstore.modality import Modality
from embedstore.space import Recipe

if TYPE_CHECKING:
    from embedstore.backbones.base import LoadedNetwork
    from embedstore.backbones.sequence import SequenceNetwork

WAVE_TYPES = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "sew", "data2vec-audio")
SPECTROGRAM_TYPES = ("whisper", "clap")
PROCESSOR_OF_ANOTHER = ("dinov3_convnext",)  # networks of images that no table of the library lists as such
PROCESSOR_FILE = "preprocessor_config.json"  # how images or sounds are read; networks of texts have none


def load(recipe: Recipe) -> LoadedNetwork | SequenceNetwork:
    """Load a network of ``transformers``.

    Raises:
        MissingExtra: when the library is not installed.
        WeightsNotFound: when a file is not on this machine and cannot be downloaded.
        WeightsMismatch: when the weights do not fit.
        BadBackbone: when the network is of a kind that gives no vectors, or lacks what was requested.
    """
    require_transformers(recipe.backbone)
    folder = open_folder(recipe)
    match modality_of(folder):
        case Modality.AUDIO:
            from embedstore.backbones.transformers_models import audio

            return audio.load(folder, recipe)
        case Modality.TEXT:
            from embedstore.backbones.transformers_models import text

            return text.load(folder, recipe)
        case Modality.IMAGE:
            from embedstore.backbones.transformers_models import vision

            return vision.load(folder, recipe)


def modality_of(folder: ModelFolder) -> Modality:
    """Return what a network reads.

    Raises:
        BadBackbone: when it is of no known kind.
    """
    from transformers.models.auto import feature_extraction_auto, image_processing_auto, modeling_auto

    if folder.model_type in (*WAVE_TYPES, *SPECTROGRAM_TYPES):
        return Modality.AUDIO
    image_types = (
        image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,  # some have the processor of another network
        PROCESSOR_OF_ANOTHER,
    )
    if any(folder.model_type in types for types in image_types):
        return Modality.IMAGE
    is_sound = folder.model_type in feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING_NAMES
    if folder.model_type in modeling_auto.MODEL_MAPPING_NAMES and not is_sound and not folder.has(PROCESSOR_FILE):
        return Modality.TEXT
    known = join_names(["bert", "gpt2", "t5", "xlnet", *SPECTROGRAM_TYPES, *WAVE_TYPES, "vit", "dinov2", "siglip"], 12)
    raise BadBackbone(
        f"{folder.name} is a {folder.model_type}, which gives no vectors here; use a model such as {known}"
    )
