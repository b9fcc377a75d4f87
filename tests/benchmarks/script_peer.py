"""What a person writes instead: a kept ONNX graph, Pillow and two threads.

``python -m tests.benchmarks.script_peer GRAPH FOLDER OUT.npy`` embeds the JPEG files of a folder with onnxruntime. The
graph maps prepared images (uint8) to vectors, as the image tower of a space does.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options)


def prepare(file: Path) -> np.ndarray:
    """Resize the short side to 256 pixels and crop the middle 224, as timm does for a MobileNetV2."""
    image = Image.open(file).convert("RGB")
    scale = 256 / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    image = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))
    return np.asarray(image).transpose(2, 0, 1)


def embed(files: list[Path]) -> np.ndarray:
    """Embed four files."""
    return session.run(None, {"inputs": np.stack([prepare(file) for file in files])})[0]


files = sorted(Path(sys.argv[2]).glob("*.jpg"))
with ThreadPoolExecutor(2) as pool:
    np.save(sys.argv[3], np.concatenate(list(pool.map(embed, [files[n : n + 4] for n in range(0, len(files), 4)]))))
