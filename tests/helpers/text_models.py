"""Small folders of models as `save_pretrained` writes them: real architectures and tokenizers, random weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from embedstore.backbones import load, resolve_name
from embedstore.space import Recipe

WORDS = "the a dog cat runs sleeps on in beach house stock market fell rose red blue big small and or very old".split()
SPECIAL = {
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "gpt2": ["<unk>", "<|endoftext|>"],
    "t5": ["<pad>", "</s>", "<unk>"],
    "xlnet": ["<unk>", "<pad>", "<sep>", "<cls>"],
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}
FAMILIES = ("bert", "distilbert", "roberta", "gpt2", "xlnet", "t5")


def save_model(folder: Path, family: str, *, seed: int = 0, padding_side: str = "right", **changes: object) -> Path:
    """Write the configuration, random weights and tokenizer of a small network, and return the folder."""
    from transformers import AutoModel, AutoModelForTextEncoding

    kind = "bert" if family == "distilbert" else family
    config = _config(family, len(SPECIAL[kind]) + len(WORDS), changes)
    torch.manual_seed(seed)
    build = AutoModelForTextEncoding if family == "t5" else AutoModel
    module = build.from_config(config)
    with torch.no_grad():
        for parameter in module.parameters():  # the library's own initialization is so small that all texts are alike
            if parameter.dim() > 1:
                parameter.mul_(8.0)
    module.save_pretrained(folder)
    save_tokenizer(folder, kind, padding_side)
    return folder


def write_sentence_files(
    folder: Path,
    *,
    pool: dict,
    dense: Sequence[tuple[int, int, str | None]] = (),
    normalize: bool = True,
    prompts: dict | None = None,
) -> None:
    """Write the files that sentence-transformers adds to a folder.

    Args:
        folder: that of the network.
        pool: the settings of the pooling.
        dense: of each dense layer its dimensions and its activation.
        normalize: whether vectors are scaled to length 1.
        prompts: by name; None writes no file of them.
    """
    kinds = ["Transformer", "Pooling", *["Dense"] * len(dense), *["Normalize"] * normalize]
    write_modules(folder, kinds)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pool))
    for n, (inputs, outputs, activation) in enumerate(dense, start=2):
        facts = {"in_features": inputs, "out_features": outputs, "bias": True, "activation_function": activation}
        layer = {"linear.weight": torch.randn(outputs, inputs), "linear.bias": torch.randn(outputs)}
        (folder / f"{n}_Dense").mkdir(exist_ok=True)
        (folder / f"{n}_Dense" / "config.json").write_text(json.dumps(facts))
        save_file(layer, folder / f"{n}_Dense" / "model.safetensors")
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))


def write_modules(folder: Path, kinds: Sequence[str]) -> None:
    """Write the list of a folder's modules, each in a folder of its number and kind but the network itself."""
    paths = [f"{n}_{kind}" if n else "" for n, kind in enumerate(kinds)]
    entries = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(entries))


def load_folder(folder: Path, **recipe: object):
    """Load the network of a folder on the CPU."""
    return load(Recipe(resolve_name(f"hf/{folder}"), **recipe), device="cpu")


def items(backbone, texts: Sequence[str]):
    """Return the vectors of texts as a run embeds them."""
    return backbone.encode([backbone.prepare(text.encode())[0] for text in texts])


def library_vectors(folder: Path, text: str):
    """Return the vectors ``(L, D)`` of the tokens of one text, without padding, as the library gives them."""
    from transformers import AutoModel, AutoModelForTextEncoding, AutoTokenizer

    is_t5 = "t5" in folder.name
    model = (AutoModelForTextEncoding if is_t5 else AutoModel).from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs).last_hidden_state[0].numpy()


def _config(family: str, vocabulary: int, changes: dict):
    """Return a configuration of two layers of 32 dimensions."""
    import transformers as tf

    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    match family:
        case "bert":
            return tf.BertConfig(vocab_size=vocabulary, max_position_embeddings=64, **size, **changes)
        case "roberta":
            return tf.RobertaConfig(vocab_size=vocabulary, max_position_embeddings=66, **size, **changes)
        case "distilbert":
            small = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64}
            return tf.DistilBertConfig(vocab_size=vocabulary, **small, **changes)
        case "gpt2":
            small = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 1}
            return tf.GPT2Config(vocab_size=vocabulary, **small, **changes)
        case "xlnet":
            return tf.XLNetConfig(vocab_size=vocabulary, d_model=32, n_layer=2, n_head=4, d_inner=64, **changes)
        case "t5":
            small = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
            return tf.T5Config(vocab_size=vocabulary, **small, **changes)
    raise ValueError(family)


def save_tokenizer(folder: Path, kind: str, padding_side: str) -> None:
    """Write a tokenizer of words, with the special tokens where the family has them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = SPECIAL[kind]
    unknown = next(token for token in special if "unk" in token.lower())
    vocabulary = {token: n for n, token in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    template = {
        "bert": "[CLS] $A [SEP]",
        "roberta": "<s> $A </s>",
        "t5": "$A </s>",
        "xlnet": "$A:0 <sep>:0 <cls>:2",
        "gpt2": "$A",
    }[kind]
    names = [token for token in special if token in template]
    if names:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[(name, vocabulary[name]) for name in names]
        )
    pad = next((token for token in special if "pad" in token.lower()), None)
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if kind in ("bert", "xlnet") else [])]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=unknown,
        padding_side=padding_side,
        model_input_names=inputs,
        **({"pad_token": pad} if pad else {}),
    ).save_pretrained(folder)
