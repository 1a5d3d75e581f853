"""Everything that can be wrong with a dataset, each finding with what to do. Reads only."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.config import QualityConfig
from aloha_runtime.data import layout, rows, statistics, uncounted
from aloha_runtime.data.check_rows import check_labels, check_rows
from aloha_runtime.data.check_videos import IMAGE_TOLERANCE, check_files, check_pictures
from aloha_runtime.data.damaged import reads_files
from aloha_runtime.data.finding import COPY, Finding
from aloha_runtime.data.quality import still_ends
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.recording import ACTION, STATE
from aloha_runtime.data.staging import ASIDE
from aloha_runtime.data.statistics import Stats
from aloha_runtime.data.units import flat_names, is_of_aloha, refuse_other_order, refuse_other_units
from aloha_runtime.errors import DatasetError
from aloha_runtime.robot import CONTROL_HZ, NAMES

STATS_TOLERANCE = 1e-5
"""Relative to the spread of a feature; float32 vectors summed in another order differ by 1e-7."""
ROUNDING = 1e-6
"""Relative to the mean, for numbers that hardly vary: sums of squares lose half of a double's digits."""


@reads_files
def check(path: Path, decode: bool = False, advance: Callable[[int], None] = lambda _: None) -> list[Finding]:
    """All findings. `decode`: look at every picture as well. `advance` hears of every episode that is done.

    Raises DatasetError when `path` is no dataset at all.
    """
    dataset = Dataset(path)
    found = list(_left_over(dataset))
    try:
        rows_with_stats = rows.read_episode_rows(path, len(dataset.episodes), with_stats=True)
        by_episode = [rows.row_stats(row) for row in rows_with_stats]
        if wrong_rows := list(check_rows(dataset)):
            return [*found, *wrong_rows]  # what is compared with rows that do not count says nothing
        found += check_labels(dataset)
        found += _numbers(dataset)
        found += _still(dataset)
        found += _statistics(dataset, by_episode)
    except DatasetError as error:  # tables that cannot be read leave nothing to compare with
        return [*found, Finding("tables", str(error).rstrip("."), "then check again")]
    for episode, wrong in check_files(dataset):
        found += wrong
        if decode:
            found += check_pictures(dataset, episode, by_episode[episode.index])
        advance(1)
    return found


def _left_over(dataset: Dataset) -> Iterator[Finding]:
    root = dataset.path
    if (root / ASIDE / "open.json").exists():
        yield Finding(
            ASIDE, "an episode was left open by a recording that was killed", f"`aloha dataset repair {root}`"
        )
    try:
        counted = rows.counted_files(root, dataset.info)
        files = [file for file in rows.numbered_files(root) if file not in counted]
        episode_rows = rows.read_episode_rows(root, dataset.info.total_episodes, with_stats=False) if files else []
        for episode, wrong in uncounted.wrong_rows(root, dataset.info, episode_rows):
            yield Finding(f"episode {episode}, its row in meta/episodes", wrong, "correct that row")
    except DatasetError:
        return
    remedy = f"`aloha dataset repair {root}` says what it is and deletes nothing of it"
    for file in files:
        yield Finding(str(file.relative_to(root)), "no episode counts this file", remedy)


def _numbers(dataset: Dataset) -> Iterator[Finding]:
    """Finite everywhere; joints in their order and units where it is a bimanual ALOHA."""
    for key in dataset.info.vectors:
        try:
            values = dataset.vectors(key)
        except DatasetError as error:
            yield Finding(key, str(error).split(". ")[0], COPY)
            continue
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


def _still(dataset: Dataset) -> Iterator[Finding]:
    """Time at either end of an episode in which no arm moves: a policy learns to wait from it."""
    names = flat_names(dataset.features[STATE].names) if STATE in dataset.info.vectors else []
    if names != list(NAMES) or dataset.fps != CONTROL_HZ:
        return
    for episode in dataset.episodes:
        state = dataset.vectors(STATE)[episode.from_index : episode.to_index]
        for end, seconds in zip(("start", "end"), still_ends(state) if len(state) else (), strict=False):
            if seconds > QualityConfig().still_s:
                remedy = f"`aloha dataset trim {dataset.path} {episode.index} --still`"
                yield Finding(f"episode {episode.index}", f"no arm moves for {seconds:.1f} s at its {end}", remedy)


def _statistics(dataset: Dataset, by_episode: Sequence[Stats]) -> Iterator[Finding]:
    """`stats.json`, and what each episode's row says, against the numbers themselves."""
    remedy = f"`aloha dataset stats {dataset.path}`"
    for key in dataset.info.vectors if len(dataset) else ():
        if dataset.features[key].dtype == layout.BOOL and key not in dataset.stats:
            continue  # other programs leave them out, and nobody needs them
        try:
            values = dataset.vectors(key).astype(np.float64)
        except DatasetError:  # `_numbers` has said it
            continue
        if said := _off(key, dataset.stats, values):
            yield Finding(layout.STATS_PATH, said, remedy)
        for episode in dataset.episodes:
            part = values[episode.from_index : episode.to_index]
            if len(part) and (said := _off(key, by_episode[episode.index], part)):
                yield Finding(f"episode {episode.index}, its row in meta/episodes", said, remedy)
    whole: Stats = {}
    for stats in by_episode:
        whole = statistics.merge_all(whole, stats)
    for key, feature in dataset.features.items():
        if not feature.is_camera or key not in whole:
            continue
        said_mean = dataset.stats.get(key, {}).get("mean", np.inf)
        if not np.abs(whole[key]["mean"] - said_mean).max() <= IMAGE_TOLERANCE:
            yield Finding(layout.STATS_PATH, f"the mean colour of {key} is not that of its episodes", remedy)


def _off(key: str, stats: Stats, values: NDArray[np.float64]) -> str:
    """Which statistic of a feature is not that of (T, D) `values`, in words; empty when all are right."""
    said = stats.get(key)
    if said is None:
        return f"says nothing of {key}"
    right = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    spread = np.maximum(right["max"] - right["min"], 1e-3) + ROUNDING * np.abs(right["mean"]) / STATS_TOLERANCE
    for name, value in right.items():
        off = np.abs(value - said[name].ravel()) / spread if name in said else np.full(len(value), np.inf)
        if not off.max() <= STATS_TOLERANCE:
            worst = int(off.argmax())
            given = f"{said[name].ravel()[worst]:.6g}" if name in said else "missing"
            return f"{name} of {key} number {worst} is {given}, the frames say {value[worst]:.6g}"
    return ""
