"""Names that pickles of numpy arrays mention, and what stands for them here: arrays of plain numbers, and bytes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.act.pickled import Names, Node


class _DType(Node):
    """A plain number type: no objects, no fields."""

    def __init__(self, code: Any, *_flags: Any) -> None:
        dtype = np.dtype(code) if isinstance(code, str) and len(code) < 8 else None
        if dtype is None or dtype.kind not in "biuf":
            raise ValueError(f"arrays of {str(code)[:40]!r} are not numbers")
        self.dtype: np.dtype[Any] = dtype

    def build(self, state: Any) -> None:
        """(version, byte order, and what only records have)"""
        if not isinstance(state, tuple) or len(state) < 5 or state[2:5] != (None, None, None):
            raise ValueError("an array type with fields")
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError(f"byte order {state[1]!r}")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(Node):
    """An array, empty until its state comes."""

    def __init__(self, *_empty: Any) -> None:
        self.array: NDArray[Any] | None = None

    def build(self, state: Any) -> None:
        """(version, shape, dtype, is in Fortran order, bytes)"""
        _version, shape, dtype, fortran, content = state
        self.array = _numbers(content, dtype, shape, "F" if fortran else "C")

    def value(self) -> NDArray[Any]:
        if self.array is None:
            raise ValueError("an array without content")
        return self.array


def _numbers(content: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    """A read-only view of `content` as an array, in this machine's byte order."""
    if isinstance(content, str):  # as pickles of Python 2 have it
        content = content.encode("latin1")
    if not isinstance(content, (bytes, bytearray)) or not isinstance(dtype, _DType) or order not in ("C", "F"):
        raise TypeError("an array without bytes or type")
    array = np.frombuffer(content, dtype=dtype.dtype).reshape(shape, order=order)
    return array.astype(dtype.dtype.newbyteorder("="), copy=False)


def _scalar(dtype: Any, content: Any) -> Any:
    return _numbers(content, dtype, (), "C").item()


def _encode(text: Any, encoding: Any) -> bytes:
    """How pickle's protocols below 3 spell bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError(f"text in encoding {encoding!r}")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    """How pickle's protocols below 3 spell no bytes."""
    return b""


def _ordered_dict(*pairs: Any) -> dict[Any, Any]:
    if not pairs:
        return {}
    made: dict[Any, Any] = {}
    for key, value in pairs[0]:
        if not isinstance(key, (str, int)):
            raise TypeError(f"a key of type {type(key).__name__}")
        made[key] = value
    return made


NUMPY: Names = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _empty_bytes,
    ("numpy", "ndarray"): Node(),  # mentioned by `_reconstruct`, never called
    ("numpy", "dtype"): _DType,
    **{
        (f"numpy.{core}.{module}", name): builder
        for core in ("core", "_core")  # numpy 1 and numpy 2
        for module, name, builder in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _numbers),
        )
    },
}
