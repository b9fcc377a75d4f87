"""DICOM, decoded by pydicom: one frame, seen through one window.

Without settings it is the first frame through the window that the file states, or from its least to its greatest value
where it states none. ``--preprocess dicom.frame=3`` and ``--preprocess dicom.window=40,400`` (center and width, in the
units of the modality, such as Hounsfield) are recorded in the space, so that every later embedding into it gives the
same pixels.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.media.image.formats.image_format import ImageFormat

_PREAMBLE = 128  # bytes before the signature (DICOM PS3.10, 7.1)


def is_dicom(data: bytes) -> bool:
    """Return whether a file is DICOM."""
    return data[_PREAMBLE : _PREAMBLE + 4] == b"DICM"


def open_dicom(data: bytes, frame: str = "0", window: str = "") -> Image.Image:
    """Open one frame.

    Args:
        data: the bytes of the file.
        frame: its number, from 0.
        window: center and width, separated by a comma; by default as the file says.

    Raises:
        ValueError: if there is no such frame, or the window is not two numbers.
    """
    import pydicom
    from pydicom.pixels import pixel_array

    file = pydicom.dcmread(io.BytesIO(data))
    number, frames = int(frame), int(file.get("NumberOfFrames", 1) or 1)
    if not 0 <= number < frames:
        raise ValueError(f"there is no frame {number}; the file has {frames}")
    pixels = pixel_array(io.BytesIO(data), index=number)
    if file.get("SamplesPerPixel", 1) > 1:  # pydicom gives RGB
        return Image.fromarray(np.ascontiguousarray(pixels))
    gray = _window(_modality_values(pixels, file), file, window)
    return Image.fromarray(255 - gray if file.PhotometricInterpretation == "MONOCHROME1" else gray)


def _modality_values(pixels: NDArray[Any], file: Any) -> NDArray[np.float64]:
    """Return stored values in the units of the modality."""
    from pydicom.pixels import apply_modality_lut

    return np.asarray(apply_modality_lut(pixels, file), np.float64)


def _window(values: NDArray[np.float64], file: Any, window: str) -> NDArray[np.uint8]:
    """Return values as gray levels from 0 to 255: the linear function of DICOM PS3.3, C.11.2.1.2.1."""
    center, width = _center_and_width(values, file, window)
    if width <= 1:
        return np.where(values <= center - 0.5, 0, 255).astype(np.uint8)
    scaled = (values - (center - 0.5)) / (width - 1) + 0.5
    return np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)


def _center_and_width(values: NDArray[np.float64], file: Any, window: str) -> tuple[float, float]:
    """Return the window of the settings, else the first of the file, else the range of the values."""
    if window:
        parts = [float(part) for part in window.split(",")]
        if len(parts) != 2 or parts[1] < 1:
            raise ValueError(f"a window is a center and a width of at least 1, such as 40,400, not {window!r}")
        return parts[0], parts[1]
    center, width = _first(file.get("WindowCenter")), _first(file.get("WindowWidth"))
    if center is not None and width is not None and width >= 1:
        return center, width
    low, high = float(values.min()), float(values.max())
    return (low + high + 1) / 2, high - low + 1


def _first(value: Any) -> float | None:
    """Return the first of one or several values."""
    if value is None or value == "":
        return None
    return float(value if not hasattr(value, "__iter__") or isinstance(value, str) else next(iter(value)))


DICOM = ImageFormat(
    name="DICOM",
    matches=is_dicom,
    open=open_dicom,
    package="pydicom",
    install="embedstore-dicom",
    max_pixels=1 << 28,
    options=("frame", "window"),
)
