"""Edits of a dataset, copy-on-write: the new tree is built beside the old one, and the two are exchanged in one step.

What goes wrong before that step (a bad index, a full disk, Ctrl-C, a kill) changes nothing. The tree before is kept
beside the dataset, sharing every file that did not change, until the next edit; `undo` exchanges the two again.
"""

import ctypes
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from aloha_runtime.data.compact import compact as join
from aloha_runtime.data.quality import STILL_RAD
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.rebuild import Piece, Source, rebuild
from aloha_runtime.data.recorded import differences
from aloha_runtime.data.recording import STATE
from aloha_runtime.data.rows import numbered_files
from aloha_runtime.data.selection import select
from aloha_runtime.data.video_encoder import CODECS
from aloha_runtime.data.writer import ASIDE, lock_dataset
from aloha_runtime.errors import DatasetError

Advance = Callable[[int], None]
MARGIN_FRAMES = 10
"""Still frames left at each end when still time is cut off: 0.2 s."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2
_LIBC = ctypes.CDLL(None, use_errno=True)


def delete(path: Path, words: Sequence[str], advance: Advance = lambda _: None) -> str:
    """Leave episodes out; the others move up."""
    source = _open(path)
    gone = _named(source, words)
    kept = [index for index in range(len(source.dataset.episodes)) if index not in gone]
    if not kept:
        raise DatasetError(f"{path}: no episode would be left. Remove the folder instead.")
    replace(path, [source.whole(index) for index in kept], advance=advance)
    return f"{len(gone)} episodes deleted, {len(kept)} left"


def relabel(
    path: Path, words: Sequence[str], task: str | None, outcome: str | None, advance: Advance = lambda _: None
) -> str:
    """Give episodes another task, or another outcome."""
    source = _open(path)
    chosen = _named(source, words)
    if task is not None and not task.strip():
        raise DatasetError("the task is empty: say in a few words what the episodes show")
    changes = {"task": task} if task is not None else {}
    report = {"report": {"outcome": outcome}} if outcome is not None else {}
    pieces = [
        source.whole(index, **(changes | report if index in chosen else {}))
        for index in range(len(source.dataset.episodes))
    ]
    replace(path, pieces, advance=advance)
    return f"{len(chosen)} episodes relabelled"


def trim(
    path: Path, index: int, start_s: float | None, end_s: float | None, still: bool, advance: Advance = lambda _: None
) -> str:
    """Cut an episode to the time from `start_s` to `end_s`, or `still` time off its ends."""
    source = _open(path)
    _named(source, [str(index)])
    episode, fps = source.dataset.episodes[index], source.dataset.fps
    first = round((start_s or 0.0) * fps)
    stop = episode.length if end_s is None else round(end_s * fps)
    if still:
        first, stop = moving(source.dataset, index)
    if not 0 <= first < stop <= episode.length:
        raise DatasetError(
            f"episode {index} lasts {episode.length / fps:.2f} s; {first / fps:.2f} to {stop / fps:.2f} s is not within"
            " it. Nothing was changed."
        )
    pieces = [
        source.whole(each, **({"first": first, "frames": stop - first} if each == index else {}))
        for each in range(len(source.dataset.episodes))
    ]
    replace(path, pieces, advance=advance)
    return f"episode {index}: {episode.length} frames before, {stop - first} now"


def moving(dataset: Dataset, index: int) -> tuple[int, int]:
    """First frame and the one after the last between which the state of an episode changes, with a little margin."""
    episode = dataset.episodes[index]
    if STATE not in dataset.info.vectors:
        raise DatasetError(f"{dataset.path} has no {STATE}: say --from and --to instead of --still")
    state = dataset.vectors(STATE)[episode.from_index : episode.to_index]
    after_start = np.flatnonzero(np.abs(state - state[0]).max(axis=1) > STILL_RAD)
    before_end = np.flatnonzero(np.abs(state - state[-1]).max(axis=1) > STILL_RAD)
    if not len(after_start):
        raise DatasetError(f"episode {index} does not move at all: delete it instead. Nothing was changed.")
    first = max(0, int(after_start[0]) - MARGIN_FRAMES)
    return first, min(episode.length, int(before_end[-1]) + 1 + MARGIN_FRAMES)


def restat(path: Path, advance: Advance = lambda _: None) -> str:
    """Compute every statistic anew."""
    source = _open(path)
    count = len(source.dataset.episodes)
    replace(path, [source.whole(index, restat=True) for index in range(count)], advance=advance)
    return f"statistics of {count} episodes computed anew"


def reencode(path: Path, codec: str, advance: Advance = lambda _: None) -> str:
    """Encode every video anew."""
    if codec not in CODECS:
        raise DatasetError(f"there is no video codec {codec!r}: choose one of {', '.join(CODECS)}")
    source = _open(path)
    count = len(source.dataset.episodes)
    replace(path, [source.whole(index) for index in range(count)], codec, advance)
    return f"videos of {count} episodes encoded as {codec}"


def compact(path: Path, advance: Advance = lambda _: None) -> str:
    """Put many episodes into each file, up to the sizes that LeRobot aims at."""
    source = _open(path)
    before = len(numbered_files(path))
    put(path, lambda aside: join(source, aside, advance))
    return f"{before} files before, {len(numbered_files(path))} now"


def split(
    path: Path, first_out: Path, second_out: Path, words: Sequence[str], advance: Advance = lambda _: None
) -> str:
    """Episodes that `words` name as one new dataset, the others as a second; `path` stays as it is."""
    source = _open(path)
    chosen = _named(source, words)
    rest = [index for index in range(len(source.dataset.episodes)) if index not in chosen]
    if not rest:
        raise DatasetError(f"{path}: every episode would go to {first_out}. Name fewer of them.")
    for out, indices in ((first_out, chosen), (second_out, rest)):
        rebuild([source.whole(index) for index in indices], out, advance=advance)
    return f"{first_out}: {len(chosen)} episodes, {second_out}: {len(rest)}"


def merge(paths: Sequence[Path], out: Path, advance: Advance = lambda _: None) -> str:
    """Datasets one after the other as a new one. What does not fit together is refused by name."""
    sources = [_open(path) for path in paths]
    for source in sources[1:]:
        found = differences(_shape(sources[0].dataset), _shape(source.dataset))
        if found:
            raise DatasetError(
                f"{source.dataset.path} does not fit {paths[0]}: {'; '.join(found)}. `aloha dataset reencode` makes"
                " codecs agree; other differences need a dataset of their own."
            )
    pieces = [source.whole(index) for source in sources for index in range(len(source.dataset.episodes))]
    rebuild(pieces, out, advance=advance)
    return f"{out}: {len(pieces)} episodes of {len(paths)} datasets"


def _shape(dataset: Dataset) -> dict[str, object]:
    """What must be the same of two datasets that become one."""
    return {
        "fps": dataset.fps,
        **{
            key: {"dtype": feature.dtype, "shape": feature.shape, "names": feature.names, "codec": _codec(feature.info)}
            for key, feature in sorted(dataset.features.items())
        },
    }


def _codec(info: dict[str, object] | None) -> object:
    return {name: (info or {}).get(f"video.{name}") for name in ("codec", "pix_fmt")}


def replace(path: Path, pieces: Sequence[Piece], codec: str | None = None, advance: Advance = lambda _: None) -> None:
    """Put a dataset of these pieces in the place of the one at `path`, which becomes what `undo` brings back."""
    put(path, lambda aside: rebuild(pieces, aside, codec, advance))


def put(path: Path, build: Callable[[Path], None]) -> None:
    """Have `build` write a tree, and exchange it with the dataset at `path` in one step."""
    path = path.resolve()
    lock = lock_dataset(path)
    aside, before = _beside(path, "new"), _beside(path, "undo")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        try:
            build(aside)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        exchange(path, aside)
        shutil.rmtree(before, ignore_errors=True)
        aside.rename(before)
    finally:
        os.close(lock)


def undo(path: Path) -> str:
    """Exchange the dataset with the one before the last edit; a second time brings the edit back."""
    path = path.resolve()
    before = _beside(path, "undo")
    if not before.exists():
        raise DatasetError(f"{path} has no edit to undo")
    lock = lock_dataset(path)
    exchange(path, before)
    os.close(lock)
    return f"as before the last edit: {len(Dataset(path).episodes)} episodes (undo again brings the edit back)"


def forget(path: Path) -> str:
    """Free what is kept for `undo`."""
    shutil.rmtree(_beside(path.resolve(), "undo"), ignore_errors=True)
    return "what was kept for undo is gone"


def exchange(first: Path, second: Path) -> None:
    """Two directories of one file system change names, in one step where the file system can do that."""
    if _LIBC.renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return
    waiting = _beside(first, "old")
    first.rename(waiting)
    second.rename(first)
    waiting.rename(second)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.name}.{what}")


def _open(path: Path) -> Source:
    """The dataset at `path` with its episodes; DatasetError when a recording was left open in it."""
    if (path / ASIDE / "open.json").exists():
        raise DatasetError(f"{path}: a recording was left open or is still running. aloha dataset repair {path}")
    source = Source(Dataset(path))
    if not source.dataset.episodes:
        raise DatasetError(f"{path} has no episodes")
    return source


def _named(source: Source, words: Sequence[str]) -> list[int]:
    if not words:
        raise DatasetError("name the episodes, such as 3 or 7-9")
    return select(words, len(source.dataset.episodes))
