"""What lies in a dataset and no episode counts: a whole episode, frames that a wrong row hides, or anything else.

Nothing here is deleted. Frames of a counted episode stay where they are, whatever its row says; a whole episode more
than `meta/info.json` counts is offered back; the rest can go to `.set-aside/DATE/`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aloha_runtime.data import layout, reports, rows
from aloha_runtime.data.layout import Info
from aloha_runtime.data.video_cut import packets
from aloha_runtime.errors import DatasetError


@dataclass(frozen=True)
class Extra:
    """A whole episode that `meta/info.json` does not count: its frames, files, and the tasks in use with it."""

    index: int
    frames: int
    said: tuple[str, ...]
    files: frozenset[Path]
    tasks: int


@dataclass
class Uncounted:
    """`extras`: whole episodes, in order; `hidden`: file -> why it must stay; `rest`: files to set aside;
    `rows_beyond`: rows that describe no whole episode, in tables of counted ones."""

    extras: list[Extra] = field(default_factory=list)
    hidden: dict[Path, str] = field(default_factory=dict)
    rest: list[Path] = field(default_factory=list)
    rows_beyond: int = 0


def refuse(path: Path, files: Sequence[Path], rows_beyond: int) -> None:
    """DatasetError when there is anything that no episode counts: writing on could hide or replace it."""
    if files or rows_beyond > 0:
        what = str(files[0].relative_to(path)) if files else f"{rows_beyond} rows of meta/episodes"
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        raise DatasetError(
            f"{path}: no episode counts {what}{more}, and this program did not leave it there. Nothing was changed;"
            f" `aloha dataset repair {path}` examines it."
        )


def refuse_any(path: Path, info: Info) -> None:
    """`refuse` for a caller that has not read the tables yet."""
    counted = rows.counted_files(path, info)
    files = [file for file in rows.numbered_files(path) if file not in counted]
    described = rows.count_rows(file for file in counted if file.is_relative_to(path / "meta"))
    refuse(path, files, described - info.total_episodes)


def _video_keys(info: Info) -> list[str]:
    return [key for key, feature in info.features.items() if feature.dtype == "video"]


def examine(path: Path, info: Info) -> Uncounted:
    """Everything in the dataset that no episode counts. DatasetError when its tables cannot be read."""
    found = rows.read_episode_rows(path, info.total_episodes, with_stats=False)
    counted = rows.used_files(path, info, rows.places(found, _video_keys(info)))
    files = [file for file in rows.numbered_files(path) if file not in counted]
    files += [file for index, file in reports.listed(path) if index >= info.total_episodes]
    result = Uncounted(extras=list(_extras(path, info)))
    taken = {file for extra in result.extras for file in extra.files}
    files = [file for file in files if file not in taken]
    result.hidden = dict(_hidden_frames(path, info, found, files)) | dict(_hidden_videos(path, info, found, files))
    result.rest = [file for file in files if file not in result.hidden]
    tables = {file for file in counted if file.is_relative_to(path / "meta")}
    in_tables = sum(bool(extra.files & tables) for extra in result.extras)
    result.rows_beyond = rows.count_rows(tables) - len(found) - in_tables
    return result


def wrong_rows(path: Path, info: Info, found: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    """Counted episodes whose row names a data file that does not hold their frames."""
    for row in found:
        file = layout.data_file(path, info, row["data/chunk_index"], row["data/file_index"])
        there = _frames_by_episode(file)[row["episode_index"]]
        if there != row["length"]:
            name = file.relative_to(path)
            yield row["episode_index"], f"its row names {name}, which holds {there} of its {row['length']} frames"


def _extras(path: Path, info: Info) -> Iterator[Extra]:
    """Whole episodes that follow those that are counted, as long as one follows the other."""
    index, start = info.total_episodes, info.total_frames
    for file in sorted((path / "meta/episodes").glob("chunk-*/file-*.parquet")):
        try:
            table = rows.read_table(file, "stats/").to_pylist()
        except DatasetError:
            return
        for row in table:
            if not isinstance(row.get("episode_index"), int) or row["episode_index"] < index:
                continue
            try:
                extra = _whole(path, info, row, index, start, file)
            except (DatasetError, KeyError, TypeError, ValueError):
                return
            if extra is None:
                return
            yield extra
            index, start = index + 1, start + extra.frames


def _whole(path: Path, info: Info, row: Mapping[str, Any], index: int, start: int, table: Path) -> Extra | None:
    length = row["length"]
    places = (row["episode_index"], row["dataset_from_index"], row["dataset_to_index"])
    if places != (index, start, start + length) or length < 1:
        return None
    data = layout.data_file(path, info, row["data/chunk_index"], row["data/file_index"])
    frames = rows.read_table(data)
    chosen = np.flatnonzero(frames["episode_index"].to_numpy() == index)
    right = {"frame_index": np.arange(length), "index": np.arange(start, start + length)}
    if len(chosen) != length or any(
        not (frames[name].to_numpy()[chosen] == value).all() for name, value in right.items()
    ):
        return None
    tasks = int(frames["task_index"].to_numpy()[chosen].max()) + 1
    if tasks > len(rows.read_table(path / layout.TASKS_PATH)) or frames["task_index"].to_numpy()[chosen].min() < 0:
        return None
    videos = set()
    for key in _video_keys(info):
        head = f"videos/{key}/"
        video = layout.video_file(path, info, key, row[head + "chunk_index"], row[head + "file_index"])
        if packets(video, info.fps).frames < round(row[head + "from_timestamp"] * info.fps) + length:
            return None
        videos.add(video)
    report = {file for number, file in reports.listed(path) if number == index}
    return Extra(
        index, length, tuple(row["tasks"]), frozenset({data, table, *videos, *report}), max(tasks, info.total_tasks)
    )


def _frames_by_episode(file: Path) -> Counter[int]:
    """How many rows of a data file belong to which episode; none for a file that is missing or damaged."""
    try:
        return Counter(rows.read_table(file)["episode_index"].to_pylist())
    except (DatasetError, KeyError):
        return Counter()


def _hidden_frames(
    path: Path, info: Info, found: Sequence[Mapping[str, Any]], files: Sequence[Path]
) -> Iterator[tuple[Path, str]]:
    """Data files with frames of counted episodes, whose rows name another file that lacks them."""
    data = [file for file in files if file.is_relative_to(path / "data")]
    wrong = dict(wrong_rows(path, info, found)) if data else {}
    for file in data:
        lost = sorted(episode for episode in _frames_by_episode(file) if episode in wrong)
        if lost:
            yield file, f"holds frames of episode {lost[0]}: {wrong[lost[0]]}"
        elif wrong and not _frames_by_episode(file):
            yield file, "cannot be read, and frames of counted episodes are missing"


def _hidden_videos(
    path: Path, info: Info, found: Sequence[Mapping[str, Any]], files: Sequence[Path]
) -> Iterator[tuple[Path, str]]:
    """Videos of a camera of which a counted episode's own part is missing, or claimed by two."""
    for key in _video_keys(info):
        mine = [file for file in files if file.is_relative_to(path / "videos" / key)]
        why = _wrong_span(path, info, key, found) if mine else ""
        for file in mine if why else []:
            yield file, f"may hold the pictures of {why}"


def _wrong_span(path: Path, info: Info, key: str, found: Sequence[Mapping[str, Any]]) -> str:
    """The first episode whose row names a part of a video that is not there, or that another episode has."""
    head = f"videos/{key}/"
    ends: dict[Path, float] = {}
    frames: dict[Path, int] = {}
    for row in sorted(
        found, key=lambda row: (row[head + "chunk_index"], row[head + "file_index"], row[head + "from_timestamp"])
    ):
        video = layout.video_file(path, info, key, row[head + "chunk_index"], row[head + "file_index"])
        begin, name = row[head + "from_timestamp"], video.relative_to(path)
        if video not in frames:
            try:
                frames[video] = packets(video, info.fps).frames
            except DatasetError:
                frames[video] = 0
        if frames[video] < round(begin * info.fps) + row["length"]:
            return f"episode {row['episode_index']}, whose row names {name}, which lacks them"
        if begin < ends.get(video, 0.0) - 0.5 / info.fps:
            return f"episode {row['episode_index']}, whose row names the part of {name} that another episode has"
        ends[video] = begin + row["length"] / info.fps
    return ""
