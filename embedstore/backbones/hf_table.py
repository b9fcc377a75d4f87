"""The networks of texts and sound that are listed without a download; any other name of the hub works too.

Parameters are those of the embedding network: without heads, poolers and decoders. A test builds each one and counts.
"""

from __future__ import annotations

from typing import NamedTuple


class HfFacts(NamedTuple):
    """What is known of a network of the hub.

    Attributes:
        name: ``hf/OWNER/NAME``.
        family: the architecture in transformers.
        parameters: the number of parameters of the embedding network.
        dim: length of its vectors.
        reads: how much of an item it reads at once.
        licence: as its page on the hub states it.
        supports_text: its space is searched with words.
    """

    name: str
    family: str
    parameters: int
    dim: int
    reads: str
    licence: str
    supports_text: bool


HF_FACTS = (
    HfFacts("hf/sentence-transformers/all-MiniLM-L6-v2", "bert", 22_565_376, 384, "256 tokens", "apache-2.0", True),
    HfFacts("hf/google-bert/bert-base-uncased", "bert", 108_891_648, 768, "512 tokens", "apache-2.0", True),
    HfFacts("hf/distilbert/distilbert-base-uncased", "distilbert", 66_362_880, 768, "512 tokens", "apache-2.0", True),
    HfFacts("hf/FacebookAI/roberta-base", "roberta", 124_055_040, 768, "512 tokens", "mit", True),
    HfFacts("hf/openai-community/gpt2", "gpt2", 124_439_808, 768, "1024 tokens", "mit", True),
    HfFacts("hf/xlnet/xlnet-base-cased", "xlnet", 116_718_336, 768, "512 tokens", "mit", True),
    HfFacts("hf/google-t5/t5-base", "t5", 109_628_544, 768, "512 tokens", "apache-2.0", True),
    HfFacts("hf/openai/whisper-tiny", "whisper", 8_208_384, 384, "30 s", "apache-2.0", False),
    HfFacts("hf/facebook/wav2vec2-base", "wav2vec2", 94_371_712, 768, "30 s", "apache-2.0", False),
    HfFacts("hf/facebook/hubert-base-ls960", "hubert", 94_371_712, 768, "30 s", "apache-2.0", False),
    HfFacts("hf/laion/clap-htsat-unfused", "clap", 153_492_890, 512, "10 s", "apache-2.0", True),
)
