"""Whether the rows of a dataset count as they should: what everything else is compared with."""

from collections.abc import Collection, Iterator

import numpy as np

from aloha_runtime.data import layout
from aloha_runtime.data.finding import COPY, Finding
from aloha_runtime.data.reader import Dataset

STAMP_SLACK = 0.1
"""Of the time between two frames: how far a time stamp may lie from that of the rate."""


def check_rows(dataset: Dataset) -> Iterator[Finding]:
    """Episodes follow one another, and their frames are there and numbered."""
    frame_index, episode_index = dataset.column("frame_index"), dataset.column("episode_index")
    end = 0
    for episode in dataset.episodes:
        where, begin = f"episode {episode.index}", end
        end += max(episode.length, 0)
        if (episode.from_index, episode.to_index) != (begin, end) or episode.length < 1:
            said = f"covers frames {episode.from_index} to {episode.to_index}, not {begin} to {begin + episode.length}"
            yield Finding(where, said, f"`aloha dataset stats {dataset.path}` counts again where the frames are whole")
        span, steps = slice(begin, end), np.arange(end - begin)
        if not np.array_equal(frame_index[span], steps) or not (episode_index[span] == episode.index).all():
            yield Finding(where, "its frames are not numbered from 0 on, or belong to another episode", COPY)
    if end != len(dataset):
        yield Finding(layout.INFO_PATH, f"counts {len(dataset)} frames, the episodes have {end}", COPY)


def check_labels(dataset: Dataset) -> Iterator[Finding]:
    """Time stamps and tasks of frames that `check_rows` found in order."""
    stamps, tasks = dataset.column("timestamp"), dataset.column("task_index")
    for episode in dataset.episodes:
        where, span = f"episode {episode.index}", slice(episode.from_index, episode.to_index)
        right = np.arange(episode.length) / dataset.fps
        off = np.abs(stamps[span] - right)
        if off.max(initial=0.0) > STAMP_SLACK / dataset.fps:
            worst = int(off.argmax())
            yield Finding(
                where, f"frame {worst} has timestamp {stamps[span][worst]:.4f} s, not {right[worst]:.4f}", COPY
            )
        named = {_task(dataset, index) for index in set(tasks[span].tolist())}
        if named != set(episode.tasks):
            yield Finding(
                where,
                f"its frames are of task {_listed(named)}, its row says {_listed(episode.tasks)}",
                f"`aloha dataset relabel {dataset.path} {episode.index} --task ...`",
            )


def _listed(names: Collection[str]) -> str:
    return "; ".join(sorted(names))


def _task(dataset: Dataset, index: int) -> str:
    return dataset.tasks[index] if 0 <= index < len(dataset.tasks) else f"number {index}, which is none"
