"""A dataset written anew from episodes, or parts of them, of others: what every edit comes down to.

Numbers and statistics follow from the pieces; videos are linked where an episode has a file to itself, cut by packets
where they allow it, and encoded again only where they must be.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aloha_runtime import inside
from aloha_runtime.data import features, files, layout, reports, rows
from aloha_runtime.data.conversion import Conversion
from aloha_runtime.data.episode_store import EpisodeStore, pretty_json
from aloha_runtime.data.layout import Feature, Info
from aloha_runtime.data.open_episode import Taken
from aloha_runtime.data.reader import Dataset, Episode, VideoSpan
from aloha_runtime.data.staging import ASIDE, clear
from aloha_runtime.data.statistics import FeatureStats, ImageHistogram, Stats
from aloha_runtime.data.video import VideoReader
from aloha_runtime.data.video_cut import Packets, cut, encode, encode_exactly, packets
from aloha_runtime.data.video_encoder import CODECS, on_this_machine, video_info
from aloha_runtime.errors import DatasetError

STAMP_TOLERANCE_S = 1e-4
"""LeRobot's: stamps further from those of the rate are real times, which are kept."""


@dataclass
class Source:
    """A dataset that pieces come from, with what is asked of it again and again."""

    dataset: Dataset
    stats: list[Stats] = field(init=False)
    shared: dict[Path, int] = field(init=False)
    """How many episodes each video file holds."""
    _packets: dict[Path, Packets] = field(init=False, default_factory=dict)
    _rows: tuple[Path, pa.Table] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        total = self.dataset.info.total_episodes
        self.stats = [rows.row_stats(row) for row in rows.read_episode_rows(self.dataset.path, total, with_stats=True)]
        self.shared = {}
        for episode in self.dataset.episodes:
            for span in episode.videos.values():
                self.shared[span.path] = self.shared.get(span.path, 0) + 1

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
    `restat`: its statistics are computed anew."""

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


def rebuild(
    pieces: Sequence[Piece],
    out: Path,
    codec: str | None = None,
    advance: Callable[[int], None] = lambda _: None,
    change: Conversion | None = None,
) -> list[str]:
    """Write `pieces`, in order, as a new dataset at `out`, which must be absent; returns what could not be kept.

    `codec`: encode every video of a camera as this one of `CODECS`; None keeps what they have. `change`: what becomes of
    the numbers. Raises DatasetError.
    """
    first = pieces[0].source.dataset
    info = _empty(first.info, codec)
    info = change.described(info) if change else info
    rigs = {_rig(piece.source.dataset) for piece in pieces}
    encoded = 0
    with files.all_at_once():
        (out / ASIDE).mkdir(parents=True)
        files.publish_bytes(pretty_json(info), out / ASIDE / "info.json", out / layout.INFO_PATH)
        if len(rigs) == 1 and (rig := rigs.pop()):
            files.publish_bytes(rig, out / ASIDE / "rig.json", out / reports.RIG_PATH)
        store = EpisodeStore(out, out / ASIDE, info)
        for piece in pieces:
            taken, again = _taken(piece, out / ASIDE, store.info, codec, change)
            store.commit(taken, _report(piece))
            encoded += again
            advance(1)
        clear(out)
    return _not_kept(pieces, len(rigs) > 1, encoded if not (codec or change) else 0)


def _not_kept(pieces: Sequence[Piece], other_rigs: bool, encoded: int) -> list[str]:
    """What the new dataset has no more, or not as it was."""
    sources = {id(piece.source): piece.source for piece in pieces}.values()
    splits = {name for source in sources for name in source.dataset.info.splits} - {"train"}
    found = []
    if encoded:
        videos = f"{encoded} video{'' if encoded == 1 else 's'}"
        found.append(f"{videos} had to be encoded again, because the cut is not at a key frame")
    if other_rigs:
        found.append(f"which rigs recorded them is not kept ({reports.RIG_PATH}), because they differ")
    if splits:
        found.append(f"the splits {', '.join(sorted(splits))} are not kept")
    if any(count > 1 for source in sources for count in source.shared.values()):
        found.append("every episode has files of its own now, `aloha dataset compact` joins them")
    return found


def _empty(info: Info, codec: str | None) -> Info:
    described = dict(info.features)
    for key, feature in info.features.items():
        if codec and feature.dtype == "video" and feature.is_camera:
            height, width, _ = feature.size
            new = video_info(CODECS[codec], height, width, info.fps)
            described[key] = Feature(feature.dtype, feature.shape, feature.names, new)
    return msgspec.structs.replace(
        info,
        features=described,
        total_episodes=0,
        total_frames=0,
        total_tasks=0,
        splits={},
        data_path=layout.DATA_PATH,
        video_path=layout.VIDEO_PATH,
    )


def _rig(dataset: Dataset) -> bytes:
    path = dataset.path / reports.RIG_PATH
    return path.read_bytes() if path.exists() else b""


def _taken(piece: Piece, aside: Path, info: Info, codec: str | None, change: Conversion | None) -> tuple[Taken, int]:
    """The piece as an episode that waits for its commit, and how many of its videos were encoded again."""
    source, dataset = piece.source, piece.source.dataset
    table = source.table(piece.index).slice(piece.first, piece.frames)
    stamps = real_stamps(table, piece.first, dataset.fps)
    picks = change.picks(piece.frames) if change else None
    table = change.numbers(table) if change else table
    frames = len(table)
    videos: dict[str, Path] = {}
    stats: Stats = {}
    encoded = 0
    for key, feature in info.features.items():
        if feature.dtype not in layout.PICTURES:
            continue
        if feature.dtype == "video":
            videos[key] = aside / f"{key}.mp4"
            span = piece.episode.videos[layout.camera_name(key)]
            if picks is None:
                encoded += not _video(piece, span, feature, videos[key], dataset.fps, codec)
            else:
                _pick_video(piece, span, feature, videos[key], picks, info.rate)
        known = source.stats[piece.index].get(key)
        if (
            known is not None
            and piece.is_whole
            and picks is None
            and (not feature.is_camera or (not piece.restat and "q50" in known))
        ):
            stats[key] = known
        elif feature.dtype == "video" and feature.is_camera:
            stats[key] = image_stats(videos[key], frames, info.fps)
        elif feature.is_camera:
            stats[key] = stored_stats(piece, layout.camera_name(key))
    return Taken(piece.task, table, videos, stats, stamps if picks is None else None), encoded


def real_stamps(table: pa.Table, first: int, fps: float) -> NDArray[np.float32] | None:
    """Seconds from the first of these frames on, when they are not those of the rate (frame `first` is the first)."""
    found = table["timestamp"].to_numpy()
    if np.abs(found - (first + np.arange(len(found))) / fps).max(initial=0.0) < STAMP_TOLERANCE_S:
        return None
    return np.asarray(found - found[0] if first else found, dtype=np.float32)


def stored_stats(piece: Piece, camera: str) -> FeatureStats:
    """Statistics of a camera whose pictures lie in the rows."""
    histogram, begin = ImageHistogram(), piece.episode.from_index + piece.first
    for index in range(begin, begin + piece.frames):
        histogram.add(piece.source.dataset.frame(camera, index))
    return histogram.stats()


def _video(piece: Piece, span: VideoSpan, feature: Feature, target: Path, fps: float, codec: str | None) -> bool:
    """Put the pictures of a piece at `target`; True when no packet changed."""
    height, width, _ = feature.size
    first = round(span.from_s * fps) + piece.first
    inside.unlink(target.parent, target)  # of the episode before
    if codec and feature.is_camera:
        own, rate = on_this_machine(codec, height, width), piece.source.dataset.info.rate
        encode(span.path, target, range(first, first + piece.frames), fps, own, rate)
        return False
    if piece.is_whole and first == 0 and piece.source.shared[span.path] == 1:
        link(span.path, target)
        return True
    name = features.codec_of(feature)
    own = on_this_machine(name, height, width) if name and feature.is_camera else None
    return cut(span.path, target, first, piece.frames, fps, own, piece.source.packets(span.path))


def _pick_video(
    piece: Piece, span: VideoSpan, feature: Feature, target: Path, picks: NDArray[np.int64], rate: Fraction
) -> None:
    """The pictures `picks` of a piece, in that order, at another rate."""
    height, width, _ = feature.size
    fps = piece.source.dataset.fps
    numbers = [round(span.from_s * fps) + piece.first + int(pick) for pick in picks]
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


def _report(piece: Piece) -> dict[str, Any] | None:
    found = reports.read(piece.source.dataset.path, piece.index)
    if not piece.is_whole:
        found["trimmed"] = {"from_frame": piece.first, "frames": piece.frames, "of": piece.episode.length}
    return {**found, **piece.report} or None
