"""A dataset written from episodes, or parts of them, of others: what every edit comes down to.

Numbers and statistics follow from the pieces; videos are linked where an episode has a file to itself, cut by packets
where they allow it, and encoded again only where they must be.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aloha_runtime.data import files, layout, reports
from aloha_runtime.data.conversion import Conversion
from aloha_runtime.data.episode_store import EpisodeStore, pretty_json
from aloha_runtime.data.layout import Feature, Info
from aloha_runtime.data.open_episode import Taken
from aloha_runtime.data.pieces import Piece, image_stats, pick_video, piece_video, stored_stats
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.staging import ASIDE, clear
from aloha_runtime.data.statistics import Stats
from aloha_runtime.data.video_encoder import CODECS, video_info

STAMP_TOLERANCE_S = 1e-4
"""LeRobot's: stamps further from those of the rate are real times, which are kept."""


def rebuild(
    pieces: Sequence[Piece],
    out: Path,
    codec: str | None = None,
    advance: Callable[[int], None] = lambda _: None,
    change: Conversion | None = None,
) -> list[str]:
    """Write `pieces`, in order, as a new dataset at `out`, which must be absent; returns what could not be kept.

    `codec`: encode every video of a camera as this one of `CODECS`; None keeps what they have. `change`: what becomes
    of the numbers. Raises DatasetError.
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
                encoded += not piece_video(piece, span, feature, videos[key], dataset.fps, codec)
            else:
                pick_video(piece, span, feature, videos[key], picks, info.rate)
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


def _report(piece: Piece) -> dict[str, Any] | None:
    found = reports.read(piece.source.dataset.path, piece.index)
    if not piece.is_whole:
        found["trimmed"] = {"from_frame": piece.first, "frames": piece.frames, "of": piece.episode.length}
    return {**found, **piece.report} or None
