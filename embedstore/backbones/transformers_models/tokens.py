"""The tokenizer of a model: from a text to the windows of tokens that the network reads.

The tokenizer's own truncation and padding are switched off: files of models have 128 tokens in them and are trained for
512. Padding is the network's business, always on the right, whatever side the tokenizer prefers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.error_text import one_line
from embedstore.backbones.sequence import PreparedSequence
from embedstore.backbones.transformers_models.folder import ModelFolder, quiet_library
from embedstore.errors import BadBackbone, TextError, WeightsNotFound
from embedstore.modality import LongText, TextInput
from embedstore.types import FailureReason

if TYPE_CHECKING:
    from tokenizers import Encoding

TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model",
)  # fmt: skip
COMPANIONS = {"vocab.json": "merges.txt"}  # the second file, without which the first is half of a tokenizer
CHARACTERS_PER_TOKEN = 64  # that are read of a text for each token of the network: few tokens of any text have more
MAX_WINDOWS = 64  # of one text

_CURE = (
    "copy the model's tokenizer.json there; where there is a network, `hf download MODEL tokenizer.json --local-dir "
    "FOLDER` writes it"
)


@dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer; many threads may use it.

    Attributes:
        backend: the tokenizer without truncation and padding.
        pad_id: the token that pads.
        has_types: the network takes the types of tokens.
    """

    backend: Any
    pad_id: int
    has_types: bool

    @property
    def digest(self) -> str:
        """``sha256:…`` over everything that decides which tokens a text has."""
        return f"sha256:{hashlib.sha256(self.backend.to_str().encode()).hexdigest()}"

    def prepare(self, text: str, reading: TextInput, prompt: str) -> PreparedSequence:
        """Return the tokens of a text, at most ``reading.max_length`` in each window.

        Args:
            text: the text.
            reading: how it is read.
            prompt: text put before it.

        Raises:
            TextError: if the tokenizer finds no token in it, or it has halves of characters.
        """
        _require_characters(text)
        most = CHARACTERS_PER_TOKEN * reading.max_length * (1 if reading.long is LongText.CUT else MAX_WINDOWS)
        is_cut, text = len(text) > most, text[:most]
        if reading.lowercase:
            text, prompt = text.lower(), prompt.lower()
        encoding = self.backend.encode(text, add_special_tokens=False)
        if not len(encoding):
            raise TextError(FailureReason.BLANK, "the tokenizer finds no token in the text")
        if prompt:
            encoding = self.backend.encode(prompt + text, add_special_tokens=False)
        encoding.truncate(reading.max_length - self.backend.num_special_tokens_to_add(is_pair=False))
        windows, rest = [encoding], encoding.overflowing
        if reading.long is LongText.WINDOWS:
            windows, rest = [encoding, *rest[: MAX_WINDOWS - 1]], rest[MAX_WINDOWS - 1 :]
        return PreparedSequence(tuple(self._window(w) for w in windows), is_cut or bool(rest))

    def _window(self, encoding: Encoding) -> NDArray[np.int64]:
        """Return tokens and their types, with the special tokens, int64 ``(2, L)``."""
        whole = self.backend.post_process(encoding, None, True)
        return np.array([whole.ids, whole.type_ids], dtype=np.int64)


def load_tokenizer(folder: ModelFolder) -> Tokenizer:
    """Load the tokenizer of a model.

    Raises:
        WeightsNotFound: when its files are not in the folder.
        BadBackbone: when they cannot be read.
    """
    _require_files(folder)
    from transformers import AutoTokenizer

    try:
        with quiet_library():
            loaded = AutoTokenizer.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
            backend = loaded.backend_tokenizer
    except Exception as error:  # a damaged file or a tokenizer without a fast form fails in any way
        raise BadBackbone(
            f"{folder.name}: the tokenizer in {folder.path} cannot be loaded: {one_line(error, 160)}; {_CURE}"
        ) from error
    backend.no_truncation()
    backend.no_padding()
    return Tokenizer(backend, loaded.pad_token_id or 0, "token_type_ids" in loaded.model_input_names)


def _require_files(folder: ModelFolder) -> None:
    """Check that the folder holds a tokenizer, with every file of it."""
    if folder.has(TOKENIZER_FILES[0]):
        return
    found = [name for name in TOKENIZER_FILES if folder.has(name)]
    if not found:
        raise WeightsNotFound(
            f"{folder.name}: no tokenizer in {folder.path}: looked for {', '.join(TOKENIZER_FILES)}; {_CURE}"
        )
    companions = {name: COMPANIONS[name] for name in found if name in COMPANIONS}
    for name, companion in companions.items():
        if len(found) == len(companions) and not folder.has(companion):
            raise WeightsNotFound(
                f"{folder.name}: the tokenizer in {folder.path} has {name} and lacks {companion}, which belongs to it; "
                f"copy {companion} there as well, or {_CURE}"
            )


def _require_characters(text: str) -> None:
    """Refuse a text with halves of characters, which no tokenizer reads."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError(FailureReason.NOT_A_TEXT, f"character {error.start + 1:,} is half of a character") from error


def stated_length(folder: ModelFolder) -> int | None:
    """Return the tokens that the tokenizer's settings name as the most; None if they name none that is meant."""
    length = folder.facts("tokenizer_config.json").get("model_max_length")
    return int(length) if isinstance(length, int | float) and 0 < length < 1e9 else None
