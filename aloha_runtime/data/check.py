"""Everything that can be wrong with a dataset, each finding with what to do. Reads only."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aloha_runtime.data import layout, rows, statistics
from aloha_runtime.data.quality import STILL_RAD
from aloha_runtime.data.reader import Dataset, Episode
from aloha_runtime.data.recording import ACTION, STATE
from aloha_runtime.data.statistics import ImageHistogram, Stats
from aloha_runtime.data.units import flat_names, is_of_aloha, refuse_other_order, refuse_other_units
from aloha_runtime.data.video import VideoReader
from aloha_runtime.data.video_cut import Packets, packets
from aloha_runtime.data.writer import ASIDE
from aloha_runtime.errors import DatasetError
from aloha_runtime.robot import DOF, IS_GRIPPER

STATS_TOLERANCE = 1e-5
"""Relative to the spread of a feature; float32 vectors summed in another order differ by 1e-7."""
IMAGE_TOLERANCE = 0.02
"""Of the brightness scale 0..1: statistics were taken before encoding, of a subsample."""
FROZEN_S = 2.0
"""Pictures that are the same to the last bit for so long, in an episode in which joints move."""
COPY = "restore the file from a copy of the dataset, or take the episode out: aloha dataset delete"


@dataclass(frozen=True)
class Finding:
    """`where`: file or episode; `what` is wrong, with the value; `remedy`: what to do."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.remedy[0].upper()}{self.remedy[1:]}."


def check(path: Path, decode: bool = False, advance: Callable[[int], None] = lambda _: None) -> list[Finding]:
    """All findings. `decode`: look at every picture as well. `advance` hears of every episode that is done.

    Raises DatasetError when `path` is no dataset at all.
    """
    dataset = Dataset(path)
    found = list(_left_over(dataset))
    try:
        episodes = dataset.episodes
        found += _counters(dataset)
        found += _numbers(dataset)
        found += _statistics(dataset)
    except DatasetError as error:  # tables that cannot be read leave nothing to compare with
        return [*found, Finding("tables", str(error).rstrip("."), "then check again")]
    seen: dict[Path, Packets | str] = {}
    said = rows.read_episode_rows(path, len(episodes), with_stats=True) if decode else []
    for episode in episodes:
        found += _videos(dataset, episode, seen)
        if decode:
            found += _pictures(dataset, episode, rows.row_stats(said[episode.index]))
        advance(1)
    return found


def _left_over(dataset: Dataset) -> Iterator[Finding]:
    root = dataset.path
    if (root / ASIDE / "open.json").exists():
        yield Finding(ASIDE, "an episode was left open by a recording that was killed", f"aloha dataset repair {root}")
    try:
        episode_rows = rows.read_episode_rows(root, dataset.info.total_episodes, with_stats=False)
    except DatasetError:
        return
    keys = [key for key, feature in dataset.features.items() if feature.dtype == "video"]
    counted = rows.used_files(root, dataset.info, rows.places(episode_rows, keys))
    for file in rows.numbered_files(root):
        if file not in counted:
            yield Finding(str(file.relative_to(root)), "no episode counts this file", f"aloha dataset repair {root}")


def _counters(dataset: Dataset) -> Iterator[Finding]:
    """Frames, episodes and times count up as they should."""
    frame_index, episode_index = dataset.column("frame_index"), dataset.column("episode_index")
    stamps, tasks = dataset.column("timestamp"), dataset.column("task_index")
    end = 0
    for episode in dataset.episodes:
        where = f"episode {episode.index}"
        if (episode.from_index, episode.to_index) != (end, end + episode.length) or episode.length < 1:
            yield Finding(
                where,
                f"covers frames {episode.from_index} to {episode.to_index}, not {end} to {end + episode.length}",
                COPY,
            )
        end = episode.to_index
        span = slice(episode.from_index, episode.to_index)
        steps = np.arange(episode.length)
        if not np.array_equal(frame_index[span], steps) or not (episode_index[span] == episode.index).all():
            yield Finding(where, "its frames are not numbered from 0 on, or belong to another episode", COPY)
        elif np.abs(stamps[span] - steps / dataset.fps).max(initial=0.0) > 0.1 / dataset.fps:
            worst = int(np.abs(stamps[span] - steps / dataset.fps).argmax())
            yield Finding(
                where, f"frame {worst} has timestamp {stamps[span][worst]:.4f} s, not {worst / dataset.fps:.4f}", COPY
            )
        named = {_task(dataset, index) for index in set(tasks[span].tolist())}
        if named != set(episode.tasks):
            yield Finding(
                where,
                f"its frames are of task {_listed(named)}, its row says {_listed(episode.tasks)}",
                "aloha dataset relabel",
            )
    if end != len(dataset):
        yield Finding(layout.INFO_PATH, f"counts {len(dataset)} frames, the episodes have {end}", COPY)


def _listed(names: Collection[str]) -> str:
    return "; ".join(sorted(names))


def _task(dataset: Dataset, index: int) -> str:
    return dataset.tasks[index] if 0 <= index < len(dataset.tasks) else f"number {index}, which is none"


def _numbers(dataset: Dataset) -> Iterator[Finding]:
    """Finite everywhere; joints in their order and units where it is a bimanual ALOHA."""
    for key in dataset.info.vectors:
        values = dataset.vectors(key)
        if not np.isfinite(values).all():
            frame, number = np.argwhere(~np.isfinite(values))[0]
            episode = int(dataset.column("episode_index")[frame])
            yield Finding(
                f"episode {episode}", f"{key} number {number} is {values[frame, number]} in frame {frame}", COPY
            )
        names = flat_names(dataset.features[key].names)
        if key in (STATE, ACTION) and is_of_aloha(names) and len(values):
            try:
                refuse_other_order("order", names)
                refuse_other_units("units", values)
            except DatasetError as error:
                yield Finding(key, str(error).split(". ")[0], "no policy of an ALOHA learns from it; convert it")


def _statistics(dataset: Dataset) -> Iterator[Finding]:
    """`stats.json` against the numbers themselves."""
    root = dataset.path
    for key in dataset.info.vectors if len(dataset) else ():
        values, said = dataset.vectors(key).astype(np.float64), dataset.stats.get(key)
        if said is None:
            yield Finding(layout.STATS_PATH, f"says nothing of {key}", f"aloha dataset stats {root}")
            continue
        right = statistics.vector_stats(values)
        spread = np.maximum(right["max"] - right["min"], 1e-3)
        for name in ("min", "max", "mean", "std"):
            off = np.abs(right[name] - said[name].ravel()) / spread
            if off.max() > STATS_TOLERANCE:
                worst = int(off.argmax())
                yield Finding(
                    layout.STATS_PATH,
                    f"{name} of {key} number {worst} is {said[name].ravel()[worst]:.6g},"
                    f" the frames say {right[name][worst]:.6g}",
                    f"aloha dataset stats {root}",
                )
                break


def _videos(dataset: Dataset, episode: Episode, seen: dict[Path, Packets | str]) -> Iterator[Finding]:
    """Each camera's file is there and holds a frame for every row, by its packets."""
    for camera, span in episode.videos.items():
        where = f"episode {episode.index}, {camera}"
        if span.path not in seen:
            try:
                seen[span.path] = packets(span.path, dataset.fps)
            except DatasetError as error:
                seen[span.path] = str(error).split(". ")[0]
        there = seen[span.path]
        if isinstance(there, str):
            yield Finding(where, there, COPY)
            continue
        first = round(span.from_s * dataset.fps)
        missing = set(range(first, first + episode.length)) - set(there.shown)
        if missing:
            name = span.path.relative_to(dataset.path)
            yield Finding(
                where, f"{name} lacks {len(missing)} of {episode.length} frames, first {min(missing) - first}", COPY
            )


def _pictures(dataset: Dataset, episode: Episode, stats: Stats) -> Iterator[Finding]:
    """Every picture can be decoded, looks as its statistics say, and changes while the arms move."""
    state = dataset.vectors(STATE)[episode.from_index : episode.to_index] if STATE in dataset.info.vectors else None
    moves = state is not None and state.shape[1] == DOF and np.ptp(state[:, ~IS_GRIPPER], axis=0).max() > 10 * STILL_RAD
    for camera, span in episode.videos.items():
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
        mean = stats.get(camera if camera in dataset.features else layout.IMAGE_PREFIX + camera, {}).get("mean")
        off = 0.0 if mean is None else float(np.abs(mean - histogram.stats()["mean"]).max())
        if off > IMAGE_TOLERANCE:
            yield Finding(
                where, f"its mean colour is {off:.3f} off its statistics", f"aloha dataset stats {dataset.path}"
            )
