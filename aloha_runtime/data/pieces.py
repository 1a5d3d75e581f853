"""Episodes, or parts of them, as what a new dataset is made of; their videos are linked where an episode has a file to
itself, cut by packets where they allow it, and encoded again only where they must be.
"""

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aloha_runtime import inside
from aloha_runtime.data import features, layout, rows
from aloha_runtime.data.layout import Feature
from aloha_runtime.data.reader import Dataset, Episode, VideoSpan
from aloha_runtime.data.statistics import FeatureStats, ImageHistogram, Stats
from aloha_runtime.data.video import VideoReader
from aloha_runtime.data.video_cut import Packets, cut, encode, encode_exactly, packets
from aloha_runtime.data.video_encoder import on_this_machine
from aloha_runtime.errors import DatasetError


@dataclass
class Source:
    """A dataset that pieces come from, with what is asked of it again and again."""

    dataset: Dataset
    stats: list[Stats] = field(init=False)
    shared: Counter[Path] = field(init=False)
    """How many episodes each video file holds."""
    _frames: Counter[Path] = field(init=False)
    """How many frames these have together, and how many there are before each episode."""
    _begins: dict[tuple[Path, int], int] = field(init=False)
    _packets: dict[Path, Packets] = field(init=False, default_factory=dict)
    _rows: tuple[Path, pa.Table] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        total = self.dataset.info.total_episodes
        self.stats = [rows.row_stats(row) for row in rows.read_episode_rows(self.dataset.path, total, with_stats=True)]
        self.shared, self._begins, self._frames = Counter(), {}, Counter()
        for episode in self.dataset.episodes:
            for span in episode.videos.values():
                self._begins[span.path, episode.index] = self._frames[span.path]
                self._frames[span.path] += episode.length
                self.shared[span.path] += 1

    def first(self, index: int, span: VideoSpan) -> int:
        """The frame of a video file with which an episode begins. Where the file holds exactly the frames of its
        episodes they are counted, so that time stamps that drifted lead to no neighbour's pictures."""
        said, counted = round(span.from_s * self.dataset.fps), self._begins[span.path, index]
        return counted if said != counted and self.packets(span.path).frames == self._frames[span.path] else said

    def packets(self, video: Path) -> Packets:
        """What a video file holds. A file of many episodes is looked through once."""
        if video not in self._packets:
            self._packets[video] = packets(video, self.dataset.fps)
        return self._packets[video]

    def table(self, index: int) -> pa.Table:
        """The rows of an episode with all their columns, as they are. The file read last stays in memory."""
        path = self.dataset.episodes[index].data_path
        if self._rows is None or self._rows[0] != path:
            self._rows = path, rows.read_table(path)
        table = self._rows[1]
        if missing := [key for key in self.dataset.info.columns if key not in table.column_names]:
            raise DatasetError(f"{path} has no column {missing[0]!r}, which {layout.INFO_PATH} lists. Restore it.")
        own = table.filter(pc.equal(table["episode_index"], index))
        if len(own) != self.dataset.episodes[index].length:
            raise DatasetError(
                f"{path} holds {len(own)} frames of episode {index}, meta/episodes says"
                f" {self.dataset.episodes[index].length}. `aloha dataset check {self.dataset.path}` says more."
            )
        if own["frame_index"].to_pylist() != list(range(len(own))):
            raise DatasetError(f"{path}: the frames of episode {index} are not in order. Take that episode out first.")
        return own.select([name for name in own.column_names if name in self.dataset.features])

    def whole(self, index: int, **changes: Any) -> "Piece":
        """All of an episode; `changes` are fields of `Piece`."""
        episode = self.dataset.episodes[index]
        if len(episode.tasks) != 1:
            raise DatasetError(
                f"{self.dataset.path}: episode {index} has {len(episode.tasks)} tasks; only episodes of one task can be"
                " edited. Use LeRobot's lerobot-edit-dataset."
            )
        return replace(Piece(self, index, episode.length, episode.tasks[0]), **changes)

    def all(self, changes: Mapping[int, Mapping[str, Any]] | None = None) -> list["Piece"]:
        """Every episode; `changes` are fields of `Piece` by episode."""
        return [self.whole(index, **(changes or {}).get(index, {})) for index in range(len(self.dataset.episodes))]


@dataclass(frozen=True)
class Piece:
    """Frames `first` up to `first + frames` of an episode, done for `task`. `report`: changes to its report.
    `restat`: its statistics are computed again."""

    source: Source
    index: int
    frames: int
    task: str
    first: int = 0
    report: Mapping[str, Any] = field(default_factory=dict)
    restat: bool = False

    @property
    def episode(self) -> Episode:
        return self.source.dataset.episodes[self.index]

    @property
    def is_whole(self) -> bool:
        return (self.first, self.frames) == (0, self.episode.length)


def piece_video(piece: Piece, span: VideoSpan, feature: Feature, target: Path, fps: float, codec: str | None) -> bool:
    """Put the pictures of a piece at `target`; True when no packet changed."""
    height, width, _ = feature.size
    first = piece.source.first(piece.index, span) + piece.first
    inside.unlink(target.parent, target)
    if codec and feature.is_camera:
        chosen, rate = on_this_machine(codec, height, width), piece.source.dataset.info.rate
        encode(span.path, target, range(first, first + piece.frames), fps, chosen, rate)
        return False
    if piece.is_whole and first == 0 and piece.source.shared[span.path] == 1:
        link(span.path, target)
        return True
    name = features.codec_of(feature)
    own = on_this_machine(name, height, width) if name and feature.is_camera else None
    return cut(span.path, target, first, piece.frames, fps, own, piece.source.packets(span.path))


def pick_video(
    piece: Piece, span: VideoSpan, feature: Feature, target: Path, picks: NDArray[np.int64], rate: Fraction
) -> None:
    """The pictures `picks` of a piece, in that order, at another rate."""
    height, width, _ = feature.size
    fps = piece.source.dataset.fps
    begin = piece.source.first(piece.index, span) + piece.first
    numbers = [begin + int(pick) for pick in picks]
    inside.unlink(target.parent, target)
    name = features.codec_of(feature)
    if name and feature.is_camera:
        encode(span.path, target, numbers, fps, on_this_machine(name, height, width), rate)
    else:
        encode_exactly(span.path, target, numbers, fps, rate)


def link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy on another disk. Files of a dataset are never changed in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def image_stats(path: Path, frames: int, fps: float) -> FeatureStats:
    """Statistics of the first `frames` pictures of a video, by decoding it."""
    histogram, reader = ImageHistogram(), VideoReader(path, fps)
    try:
        for number in range(frames):
            histogram.add(reader.frame(number / fps))
    finally:
        reader.close()
    return histogram.stats()


def stored_stats(piece: Piece, camera: str) -> FeatureStats:
    """Statistics of a camera whose pictures lie in the rows."""
    histogram, begin = ImageHistogram(), piece.episode.from_index + piece.first
    for index in range(begin, begin + piece.frames):
        histogram.add(piece.source.dataset.frame(camera, index))
    return histogram.stats()
