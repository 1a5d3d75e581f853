"""Pixels and vectors of an observation on their way to a policy server, and back again there."""

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.jpeg import jpeg_size
from aloha_runtime.remote.wire import SPARE_BYTES, Look, Picture

JPEG_QUALITY = 95
"""Percent; with the colours at full resolution. What it costs and what a policy notices: docs/decisions.md."""
RAW_BELOW = 256 << 10
"""Bytes of pixels in an observation that are sent as they are: 20 ms at 100 Mbit/s, and nothing to encode."""


@dataclass(frozen=True)
class Inputs:
    """What a policy looks at. `pictures`: (height, width) by name; `vectors`: how many numbers, by name."""

    pictures: Mapping[str, tuple[int, int]]
    vectors: Mapping[str, int]

    @property
    def most_bytes(self) -> int:
        """Of a message that carries them, whatever the encoding: a JPEG that is longer than its pixels is refused."""
        return sum(height * width * 3 for height, width in self.pictures.values()) + SPARE_BYTES


def pack(observation: Mapping[str, Any], session: bytes, number: int) -> Look:
    """Arrays by name: uint8 (height, width, 3) are pictures, all else vectors."""
    arrays = {name: np.asarray(value) for name, value in observation.items()}
    pictures = {name: array for name, array in arrays.items() if array.dtype == np.uint8}
    raw = sum(array.nbytes for array in pictures.values()) <= RAW_BELOW
    return Look(
        session,
        number,
        {name: array.astype("<f4").tobytes() for name, array in arrays.items() if name not in pictures},
        {name: Picture("raw", array.tobytes()) if raw else _to_jpeg(array) for name, array in pictures.items()},
    )


def unpack(look: Look, inputs: Inputs) -> dict[str, NDArray[Any]]:
    """The same arrays again; ValueError unless they are exactly what the policy looks at."""
    for what, sent, wanted in (("vectors", look.vectors, inputs.vectors), ("pictures", look.pictures, inputs.pictures)):
        if set(sent) != set(wanted):
            raise ValueError(f"{what} {', '.join(sorted(sent)) or 'none'}, needed are {', '.join(sorted(wanted))}")
    found: dict[str, NDArray[Any]] = {}
    for name, count in inputs.vectors.items():
        vector = np.frombuffer(look.vectors[name], "<f4") if len(look.vectors[name]) == 4 * count else np.empty(0)
        if len(vector) != count or not np.isfinite(vector).all():
            raise ValueError(f"{name} is not {count} finite numbers")
        found[name] = vector.astype(np.float32)
    for name, (height, width) in inputs.pictures.items():
        found[name] = _pixels(name, look.pictures[name], height, width)
    return found


def _to_jpeg(image: NDArray[np.uint8]) -> Picture:
    import cv2  # 40 MB that a policy without large pictures need not load; it lets other threads run meanwhile

    settings = [
        cv2.IMWRITE_JPEG_QUALITY,
        JPEG_QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    assert done, "OpenCV has no JPEG encoder"
    return Picture("jpeg", data.tobytes())


def _pixels(name: str, picture: Picture, height: int, width: int) -> NDArray[np.uint8]:
    """The size is checked before a decoder makes room for it."""
    if picture.encoding == "raw":
        if len(picture.data) != height * width * 3:
            raise ValueError(f"{name} has {len(picture.data)} bytes, {width}x{height} RGB are {height * width * 3}")
        return np.frombuffer(picture.data, np.uint8).reshape(height, width, 3).copy()
    size = jpeg_size(picture.data)
    if size != (height, width):
        said = f"{size[1]}x{size[0]}" if size else "no JPEG"
        raise ValueError(f"{name} is {said}, the policy looks at {width}x{height}")
    from PIL import Image as Pictures

    try:
        with Pictures.open(io.BytesIO(picture.data), formats=["JPEG"]) as opened:
            if opened.mode != "RGB":
                raise ValueError(f"{name} is {opened.mode}, the policy looks at RGB")
            return np.array(opened)
    except (OSError, SyntaxError, ArithmeticError, LookupError, struct.error, Pictures.DecompressionBombError) as error:
        raise ValueError(f"{name} is no JPEG ({error})") from None
