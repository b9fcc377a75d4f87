"""Classify photos with an exported classifier: onnxruntime, NumPy and Pillow, without embedstore or PyTorch.

embedstore export-classifier pets.store species species.onnx
python classify.py species.onnx new-photos/*.jpg
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def read_rgb(path: str) -> np.ndarray:
    """Return the upright picture as uint8 (1, height, width, 3), transparency over white."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I;16"):  # Pillow would make all but the darkest levels white
            image = Image.fromarray(((np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image.convert("RGBA"))
        return np.asarray(image.convert("RGB"))[None]


def main(model: str, paths: list[str]) -> None:
    """Print one line per photo: the label, its probability and the file."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    for path in paths:
        probabilities = session.run(["probabilities"], {"images": read_rgb(path)})[0][0]
        best = int(probabilities.argmax())
        print(f"{classes[best]}\t{probabilities[best]:.6f}\t{path}")


main(sys.argv[1], sys.argv[2:])
