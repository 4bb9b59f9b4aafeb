"""Columns of a dataset as arrays, or as lists where they have no shape.

Shapes: N rows, H, W and C height, width and channels of images.
"""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reimpl.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from PIL.Image import Image


def values(dataset: "Dataset", column: str, *, where: str) -> "np.ndarray | list[Any]":
    """One column as an array where it has a shape, else as a list.

    Args:
        dataset: a split of it.
        column: its name.
        where: it is, for messages.

    Raises:
        DataError: an image is damaged or of another size than the first, or the column's type is
            not one of ours.
    """
    import datasets

    if isinstance(dataset.features[column], datasets.Image):
        stored = dataset.cast_column(column, datasets.Image(decode=False))[column]
        return _images(where, [_encoded(image) for image in stored])
    arrow = dataset.with_format("arrow")[:][column]
    array = _numbers(arrow)
    return _listed(where, arrow) if array is None else array


def _numbers(column: Any) -> "np.ndarray | None":
    """An Arrow column as int64 or float32; None when it is not numbers of one shape."""
    import numpy as np
    import pyarrow as pa

    nested = pa.types.is_nested(column.type) or isinstance(column.type, pa.BaseExtensionType)
    try:
        array = np.asarray(column.to_pylist()) if nested else column.to_numpy()
    except ValueError:  # ragged
        return None
    kinds = {"b": np.int64, "i": np.int64, "u": np.int64, "f": np.float32}
    return array.astype(kinds[array.dtype.kind]) if array.dtype.kind in kinds else None


def _listed(where: str, column: Any) -> list[Any]:
    listed = ["" if value is None else value for value in column.to_pylist()]
    try:
        json.dumps(listed)
    except TypeError as error:
        raise DataError(
            f"{where} is neither images, numbers, text nor lists of them: {error}"
        ) from None
    return listed


def _encoded(image: Mapping[str, Any] | None) -> bytes:
    """The file of one image; empty when there is none."""
    if image is None:
        return b""
    return image["bytes"] or Path(image["path"]).read_bytes()


def _images(where: str, files: list[bytes]) -> "np.ndarray":
    """Image files as uint8 (N, H, W[, C]); where some are in colour, all are."""
    import numpy as np

    mode = _mode({_picture(where, row, file).mode for row, file in enumerate(files)})
    images = np.empty((len(files), 0, 0), dtype=np.uint8)
    for row, file in enumerate(files):
        pixels = np.asarray(_picture(where, row, file, mode))
        if row == 0:
            images = np.empty((len(files), *pixels.shape), dtype=np.uint8)
        if pixels.shape != images.shape[1:]:
            raise DataError(
                f"{where}: image {row} is {pixels.shape}, image 0 is {images.shape[1:]}; "
                "one tensor needs one size, so resize them before they are put in the mirror"
            )
        images[row] = pixels
    return images


def _mode(modes: set[str]) -> str:
    if modes <= {"L", "1"}:
        return "L"
    return "RGBA" if modes & {"RGBA", "LA"} else "RGB"


def _picture(where: str, row: int, file: bytes, mode: str | None = None) -> "Image":
    """An image file opened (its header read), or decoded to a mode."""
    from PIL import Image

    try:
        picture = Image.open(BytesIO(file))
        decoded = picture if mode is None else picture.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for a damaged file
        raise DataError(f"{where}: image {row} cannot be decoded: {error}") from None
    if picture.mode not in {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"}:
        raise DataError(f"{where}: image {row} has mode {picture.mode}, which 8 bits cannot hold")
    return decoded
