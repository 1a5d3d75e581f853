"""What can be wrong with a dataset's videos: against the rows by their packets, against themselves by decoding."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from aloha_runtime.data import layout
from aloha_runtime.data.finding import COPY, Finding
from aloha_runtime.data.layout import IMAGE_PREFIX
from aloha_runtime.data.quality import STILL_RAD
from aloha_runtime.data.reader import Dataset, Episode
from aloha_runtime.data.recording import STATE
from aloha_runtime.data.statistics import ImageHistogram, Stats
from aloha_runtime.data.video import VideoReader
from aloha_runtime.data.video_cut import Packets, packets
from aloha_runtime.errors import DatasetError
from aloha_runtime.robot import DOF, IS_GRIPPER

IMAGE_TOLERANCE = 0.02
"""Of the brightness scale 0..1: statistics were taken before encoding, of a subsample."""
FROZEN_S = 2.0
"""Pictures that are the same to the last bit for so long, in an episode in which joints move."""


def check_files(dataset: Dataset) -> Iterator[tuple[Episode, list[Finding]]]:
    """Episode by episode: each camera's file is there, is what the description says, and shows every row."""
    seen: dict[Path, Packets] = {}
    broken: dict[Path, str] = {}
    kinds: dict[str, tuple[str, Path]] = {}
    counted: dict[Path, int] = {}
    whole = Counter[Path]()
    for episode in dataset.episodes:
        whole.update({span.path: episode.length for span in episode.videos.values()})
    for episode in dataset.episodes:
        found: list[Finding] = []
        for camera, span in episode.videos.items():
            where, name = f"episode {episode.index}, {camera}", span.path.relative_to(dataset.path)
            if span.path not in seen and span.path not in broken:
                try:
                    seen[span.path] = packets(span.path, dataset.fps)
                    found += _kind(dataset, camera, span.path, where, kinds)
                except DatasetError as error:
                    broken[span.path] = str(error).split(". ")[0]
            if span.path in broken:
                found.append(Finding(where, broken[span.path], COPY))
                continue
            first, right = round(span.from_s * dataset.fps), counted.get(span.path, 0)
            counted[span.path] = right + episode.length
            if first != right and seen[span.path].frames == whole[span.path]:
                said = f"begins at frame {first} of {name} by its from_timestamp, the episodes before it have {right}"
                found.append(Finding(where, said, f"`aloha dataset stats {dataset.path}` counts them again"))
                continue
            if missing := set(range(first, first + episode.length)) - set(seen[span.path].shown):
                lacks = f"{name} lacks {len(missing)} of {episode.length} frames, first {min(missing) - first}"
                found.append(Finding(where, lacks, COPY))
        yield episode, found


def _kind(
    dataset: Dataset, camera: str, path: Path, where: str, kinds: dict[str, tuple[str, Path]]
) -> Iterator[Finding]:
    """Size and codec of a video file against `meta/info.json`, and its encoding against that of the camera's first
    file, which `kinds` remembers."""
    name = path.relative_to(dataset.path)
    with av.open(path) as container:
        stream = container.streams.video[0]
        size, codec = (stream.height, stream.width), stream.codec_context.codec.canonical_name
        kind = f"{codec} {stream.codec_context.pix_fmt}"
    expected = next(feature.size[:2] for key, feature in dataset.features.items() if layout.camera_name(key) == camera)
    if size != expected:
        said = f"{name} is {size[1]}x{size[0]}, {layout.INFO_PATH} says {expected[1]}x{expected[0]}"
        yield Finding(where, said, COPY)
    info = dataset.features[_key(dataset, camera)].info or {}
    if info.get("video.codec", codec) != codec:
        said = f"{name} is {codec}, {layout.INFO_PATH} says {info['video.codec']}"
        yield Finding(where, said, f"`aloha dataset reencode {dataset.path}`")
    elif (first := kinds.setdefault(camera, (kind, path)))[0] != kind:
        said = f"{name} is {kind}, {first[1].relative_to(dataset.path)} is {first[0]}: the camera's encodings are mixed"
        yield Finding(where, said, f"`aloha dataset reencode {dataset.path}`")


def _key(dataset: Dataset, camera: str) -> str:
    """The feature of a camera."""
    return IMAGE_PREFIX + camera if IMAGE_PREFIX + camera in dataset.features else camera


def check_pictures(dataset: Dataset, episode: Episode, stats: Stats) -> Iterator[Finding]:
    """Every picture can be decoded, looks as its statistics say, and changes while the arms move."""
    state = dataset.vectors(STATE)[episode.from_index : episode.to_index] if STATE in dataset.info.vectors else None
    moves = state is not None and state.shape[1] == DOF and np.ptp(state[:, ~IS_GRIPPER], axis=0).max() > 10 * STILL_RAD
    for camera, span in episode.videos.items():
        if camera not in dataset.cameras:  # depth and other maps are not pictures to look at
            continue
        where = f"episode {episode.index}, {camera}"
        try:
            reader = VideoReader(span.path, dataset.fps)
            histogram, same, longest, last = ImageHistogram(), 0, 0, None
            for index in range(episode.length):
                image = reader.frame(span.from_s + index / dataset.fps)
                if image.shape[:2] != dataset.cameras[camera]:
                    raise DatasetError(f"{span.path}: frames are {image.shape[1]}x{image.shape[0]}")
                histogram.add(image)
                same = same + 1 if last is not None and np.array_equal(image, last) else 0
                longest, last = max(longest, same), image
            reader.close()
        except DatasetError as error:
            yield Finding(where, str(error).split(". ")[0], COPY)
            continue
        if moves and longest > FROZEN_S * dataset.fps:
            yield Finding(
                where, f"the picture stands still for {longest / dataset.fps:.1f} s while the arms move", COPY
            )
        mean = stats.get(_key(dataset, camera), {}).get("mean")
        off = 0.0 if mean is None else float(np.abs(mean - histogram.stats()["mean"]).max())
        if off > IMAGE_TOLERANCE:
            yield Finding(
                where, f"its mean colour is {off:.3f} off its statistics", f"`aloha dataset stats {dataset.path}`"
            )
