"""Columns of the rows as numbers, texts and pictures."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aloha_runtime.data import layout
from aloha_runtime.data.layout import Feature
from aloha_runtime.data.rows import is_list, read_table
from aloha_runtime.data.video import Image
from aloha_runtime.errors import DatasetError


class StoredPictures:
    """Pictures that are stored in the rows as files of their own (PNG, JPEG). The file of rows read last stays open in
    memory."""

    def __init__(self) -> None:
        self._read: tuple[tuple[Path, str], pa.Table] | None = None

    def picture(self, path: Path, key: str, index: int) -> Image:
        """Frame `index` of the dataset, (H, W, 3) uint8 RGB."""
        if self._read is None or self._read[0] != (path, key):
            self._read = (path, key), read_table(path, only=(key, "index"))
        table = self._read[1]
        where = f"{path}: {key} of frame {index}"
        if key not in table.column_names:
            raise DatasetError(f"{where} is missing. Restore the file from a copy of the dataset.")
        numbers = table["index"].to_numpy()
        place = int(np.searchsorted(numbers, index))
        cell = table[key][place].as_py() if place < len(numbers) and numbers[place] == index else None
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        elsewhere = cell.get("path") if isinstance(cell, dict) else None
        if not isinstance(data, bytes):
            beside = f" It names a file instead, {elsewhere!r}, which is not followed." if elsewhere else ""
            raise DatasetError(f"{where} holds no picture.{beside} Restore the file from a copy of the dataset.")
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if found is None:
            raise DatasetError(f"{where} is no PNG or JPEG. Restore the file from a copy of the dataset.")
        return np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def to_numpy(path: Path, name: str, column: pa.ChunkedArray, feature: Feature) -> NDArray[Any]:
    """(N,) for shape [1], else (N, D, ...): the column as its feature says, or DatasetError."""
    kind = column.type
    flat = column.combine_chunks()
    while is_list(flat.type):
        flat = flat.flatten()
    size = int(np.prod(feature.shape))
    fits = len(flat) == len(column) * size and column.null_count == flat.null_count == 0
    if not fits or str(flat.type) != _ARROW_NAME.get(feature.dtype, feature.dtype):
        raise DatasetError(
            f"{path}: column {name!r} holds {kind}, {layout.INFO_PATH} says {feature.dtype} of shape {feature.shape}."
            f" Correct the entry or restore the file from a copy of the dataset."
        )
    values: NDArray[Any] = flat.to_numpy(zero_copy_only=False)
    return values if feature.shape in ([1], []) else values.reshape(len(column), *feature.shape)


def empty(feature: Feature) -> NDArray[Any]:
    dtype = object if feature.dtype == "string" else feature.dtype
    return np.empty((0,) if feature.shape in ([1], []) else (0, *feature.shape), dtype=dtype)


_ARROW_NAME = {"float32": "float", "float64": "double", "float16": "halffloat"}
