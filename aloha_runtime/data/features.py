"""What a dataset holds: the features of a new one, whether an existing one can be continued, whether a frame fits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aloha_runtime.data.layout import BOOL, COUNTERS, IMAGE_PREFIX, Feature, Info
from aloha_runtime.data.units import flat_names
from aloha_runtime.data.video import Image
from aloha_runtime.data.video_encoder import CODECS, video_info
from aloha_runtime.errors import DatasetError


def describe(
    vectors: Mapping[str, Sequence[str]],
    cameras: Mapping[str, tuple[int, int]],
    fps: float,
    codec: str,
    scalars: Mapping[str, str] | None = None,
) -> dict[str, Feature]:
    """The features of a new dataset; arguments as `DatasetWriter.create` takes them."""
    if codec not in CODECS:
        raise DatasetError(f"There is no video codec {codec!r}. Choose one of: {', '.join(CODECS)}.")
    features = {}
    for camera, (height, width) in cameras.items():
        if height < 2 or width < 2 or height % 2 or width % 2:
            raise DatasetError(f"Camera {camera!r} is {width}x{height}; {codec} needs even sizes. Crop or resize it.")
        info = video_info(CODECS[codec], height, width, fps)
        features[IMAGE_PREFIX + camera] = Feature("video", [height, width, 3], ["height", "width", "channels"], info)
    for key, names in vectors.items():
        if not names or key in COUNTERS or "/" in key:
            raise DatasetError(f"Vector {key!r} of {len(names)} numbers cannot be a feature. Rename it.")
        features[key] = Feature("float32", [len(names)], list(names))
    for key, dtype in (scalars or {}).items():
        features[key] = Feature(dtype, [1], None)
    if not vectors:
        raise DatasetError("A dataset needs at least one vector, such as the action.")
    features |= {key: Feature(dtype, [1], None) for key, dtype in COUNTERS.items()}
    return features


def check_appendable(path: Path, info: Info) -> None:
    """Raise DatasetError when the dataset has a feature that this runtime does not write."""
    for key, feature in info.features.items():
        if (
            key not in COUNTERS
            and (key not in info.vectors or feature.dtype not in ("float32", BOOL))
            and feature.dtype != "video"
        ):
            raise DatasetError(
                f"{path}: feature {key!r} is {feature.dtype} of shape {feature.shape}; this runtime records float32 and"
                f" bool vectors and videos. Record into a new dataset. Edits carry that feature along as it is."
            )
        if feature.dtype == "video" and not (feature.is_camera and codec_of(feature)):
            raise DatasetError(
                f"{path}: video of {key!r} is {(feature.info or {}).get('video.codec')}; this runtime encodes"
                f" {', '.join(CODECS)}, in colour. Record into a new dataset. Edits carry that feature along as it is."
            )


def codec_of(feature: Feature) -> str:
    """Which of `CODECS` goes on with a video feature, empty when none; h264 where nothing is written yet."""
    info = feature.info or {}
    name, pix_fmt = info.get("video.codec", "h264"), info.get("video.pix_fmt", "yuv420p")
    return next((key for key, codec in CODECS.items() if (codec.name, codec.pix_fmt) == (name, pix_fmt)), "")


_KINDS = {"video": ("u", "uint8"), BOOL: ("b", "bool")}
"""Dtype of a feature: the kind of number that `fitting` takes for it, and its name in words."""


def fitting(
    frame: Mapping[str, ArrayLike | None], path: Path, info: Info, index: int
) -> tuple[dict[str, Image | None], dict[str, NDArray[np.float32]]]:
    """The images and, copied, the vectors of frame `index` of an episode; DatasetError when one does not fit.

    An image may be None (the one before is repeated), but for the first frame.
    """
    expected = [key for key in info.features if key not in COUNTERS]
    if missing := [key for key in expected if key not in frame]:
        raise DatasetError(f"{path}: the frame lacks {', '.join(missing)}. Give every feature in every frame.")
    if unknown := [key for key in frame if key not in expected]:
        raise DatasetError(f"{path} has no feature {', '.join(unknown)}; it has: {', '.join(expected)}.")
    images: dict[str, Image | None] = {}
    vectors = {}
    for key in expected:
        feature = info.features[key]
        shape, is_image = tuple(feature.shape), feature.dtype == "video"
        if is_image and frame[key] is None and index > 0:
            images[key] = None
            continue
        value = np.asarray(frame[key])
        fits, wanted = _KINDS.get(feature.dtype, ("f", "floating point"))
        if value.shape != shape or not (value.dtype == np.uint8 if is_image else value.dtype.kind == fits):
            raise DatasetError(
                f"{path}: {key} is {value.dtype} of shape {value.shape}; it must be {wanted} of shape {shape}."
            )
        if is_image:
            images[key] = value
            continue
        with np.errstate(over="ignore"):
            vectors[key] = value.astype(np.float32)
        if not np.isfinite(vectors[key]).all():
            bad = int(np.flatnonzero(~np.isfinite(vectors[key]))[0])
            names = flat_names(feature.names)
            name = names[bad] if bad < len(names) else f"number {bad}"
            raise DatasetError(
                f"{path}: {key} of frame {index} is not finite: {name} is {value[bad]}. Drop the frame or discard the"
                f" episode, and look at where that value comes from."
            )
    return images, vectors
