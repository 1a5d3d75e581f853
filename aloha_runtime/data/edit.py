"""Edits of a dataset: each one is a new tree from pieces of the old (`rebuild.py`) in its place (`exchange.py`).

What goes wrong before that step (a bad index, a full disk, Ctrl-C, a kill) changes nothing. Every function returns in
one line what it did, and what it could not keep.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from aloha_runtime.data import exchange, steps, uncounted
from aloha_runtime.data.compact import compact as join
from aloha_runtime.data.layout import read_info
from aloha_runtime.data.pieces import Piece, Source
from aloha_runtime.data.quality import STILL_RAD
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.rebuild import rebuild
from aloha_runtime.data.recording import STATE
from aloha_runtime.data.rows import numbered_files
from aloha_runtime.data.selection import select
from aloha_runtime.data.staging import ASIDE
from aloha_runtime.data.taken_along import with_the_rest
from aloha_runtime.data.video_encoder import CODECS
from aloha_runtime.errors import DatasetError

Advance = Callable[[int], None]
MARGIN_FRAMES = 10
"""Still frames left at each end when still time is cut off: 0.2 s."""


def delete(path: Path, words: Sequence[str], advance: Advance = lambda _: None) -> str:
    """Leave episodes out; the others move up."""
    with _editing(path) as source:
        gone = named(source, words)
        pieces = [piece for piece in source.all() if piece.index not in gone]
        if not pieces:
            raise DatasetError(f"{path}: no episode would be left. Remove the folder instead.")
        return _replace(path, pieces, f"{count(gone)} deleted, {len(pieces)} left", advance=advance)


def relabel(
    path: Path, words: Sequence[str], task: str | None, outcome: str | None, advance: Advance = lambda _: None
) -> str:
    """Give episodes another task, or another outcome."""
    if task is None and outcome is None:
        raise DatasetError("say what the episodes are to be: --task or --outcome")
    if task is not None and not task.strip():
        raise DatasetError("the task is empty: say in a few words what the episodes show")
    with _editing(path) as source:
        chosen = named(source, words)
        changes = {"task": task} if task is not None else {}
        report = {"report": {"outcome": outcome}} if outcome is not None else {}
        pieces = source.all(dict.fromkeys(chosen, changes | report))
        return _replace(path, pieces, f"{count(chosen)} relabelled", advance=advance)


def trim(
    path: Path, index: int, start_s: float | None, end_s: float | None, still: bool, advance: Advance = lambda _: None
) -> str:
    """Cut an episode to the time from `start_s` to `end_s`, or `still` time off its ends."""
    if still == (start_s is not None or end_s is not None):
        raise DatasetError("say where to cut: --from and --to in seconds, or --still")
    with _editing(path) as source:
        named(source, [str(index)])
        length, fps = source.dataset.episodes[index].length, source.dataset.fps
        first = round((start_s or 0.0) * fps)
        stop = length if end_s is None else round(end_s * fps)
        if still:
            first, stop = moving(source.dataset, index)
        if not 0 <= first < stop <= length:
            raise DatasetError(
                f"episode {index} lasts {length / fps:.2f} s; {first / fps:.2f} to {stop / fps:.2f} s is not within"
                " it. Nothing was changed."
            )
        pieces = source.all({index: {"first": first, "frames": stop - first}})
        said = f"episode {index}: frames {first} to {stop - 1} of {length} are left"
        return _replace(path, pieces, said, advance=advance)


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
    """Compute every statistic again."""
    with _editing(path) as source:
        every = {index: {"restat": True} for index in range(len(source.dataset.episodes))}
        return _replace(path, source.all(every), f"statistics of {count(every)} computed again", advance=advance)


def reencode(path: Path, codec: str, advance: Advance = lambda _: None) -> str:
    """Encode every video again."""
    if codec not in CODECS:
        raise DatasetError(f"there is no video codec {codec!r}: choose one of {', '.join(CODECS)}")
    with _editing(path) as source:
        if not any(feature.dtype == "video" for feature in source.dataset.features.values()):
            raise DatasetError(f"{path} has no video. Nothing was changed.")
        said = f"videos of {count(source.dataset.episodes)} encoded as {codec}"
        before = sum(video.stat().st_size for video in source.shared)
        said = _replace(path, source.all(), said, codec, advance)
    after = sum(video.stat().st_size for video in path.glob("videos/**/*.mp4"))
    return f"{said} ({before / 1e6:.1f} MB before, {after / 1e6:.1f} MB now)"


def compact(path: Path, advance: Advance = lambda _: None) -> str:
    """Put many episodes into each file, up to the sizes that LeRobot aims at."""
    with _editing(path) as source:
        before = len(numbered_files(path))
        build = with_the_rest(path, lambda aside: join(source, aside, advance))
        gone = exchange.replace(path, build, lambda: f"compact: {before} files before")
    said = f"{before} files before, {len(numbered_files(path))} now; no frame and no number has changed"
    return with_notes(said, _expired(gone))


def undo(path: Path) -> str:
    """The dataset before the last edit takes its place; again, the one before that."""
    exchange.undo(path)
    left, aside = len(steps.kept(path)), _next_episodes(path, steps.FORWARD)
    return (
        f"{read_info(path).total_episodes} episodes, as before that edit; the {aside} that were here are kept, `aloha"
        f" dataset undo {path} --redo` brings them back; {count_of(left, 'older step')} left"
    )


def redo(path: Path) -> str:
    """Take the last undo back."""
    exchange.undo(path, again=True)
    return f"{read_info(path).total_episodes} episodes, as before that undo; undo again goes back"


def steps_of(path: Path) -> str:
    """What is kept, the step that is undone next first."""
    exchange.settle(path)
    read_info(path)
    lines = []
    for kind, verb in ((steps.FORWARD, "redo"), (steps.BACK, "undo")):
        for number, tree in enumerate(steps.kept(path, kind), 1):
            step = steps.read(tree)
            told = f"{step.made}  {step.episodes} episodes before: {step.said}" if step else "(nothing is known of it)"
            lines.append(f"{verb} {number}: {told}")
    return "\n".join(lines) or "nothing is kept for undo"


def _next_episodes(path: Path, kind: str) -> int:
    found = steps.read(steps.kept(path, kind)[0])
    return found.episodes if found else 0


def count_of(number: int, what: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _expired(gone: Sequence[str]) -> list[str]:
    """What is to be said of steps that had to go."""
    if not gone:
        return []
    return [f"{count_of(len(gone), 'oldest step')} can be undone no more (at most {steps.MOST}, fewer on a full disk)"]


def forget(path: Path) -> str:
    """Free what is kept for `undo`."""
    read_info(path)
    exchange.forget(path)
    return "what was kept for undo is gone"


def replace_with(path: Path, build: Callable[[Source, Path], None], said: str) -> str:
    """Have `build` write another dataset from the one at `path`, and put it in its place; returns `said` with the older
    steps that had to go."""
    with _editing(path) as source:
        gone = exchange.replace(path, with_the_rest(path, lambda aside: build(source, aside)), lambda: said)
    return with_notes(said, _expired(gone))


def _replace(
    path: Path, pieces: Sequence[Piece], said: str, codec: str | None = None, advance: Advance = lambda _: None
) -> str:
    """Put a dataset of these pieces in the place of the one at `path`; returns `said` with what could not be kept."""
    notes: list[str] = []
    build = with_the_rest(path, lambda aside: notes.extend(rebuild(pieces, aside, codec, advance)))
    gone = exchange.replace(path, build, lambda: with_notes(said, notes))
    return with_notes(said, [*notes, *_expired(gone)])


def with_notes(said: str, notes: Sequence[str]) -> str:
    """One line of what was done and what could not be kept."""
    return "; ".join([said, *dict.fromkeys(notes)])


@contextlib.contextmanager
def _editing(path: Path) -> Iterator[Source]:
    """The dataset at `path`, held against writers and other edits."""
    exchange.settle(path)
    read_info(path)  # first: what is no dataset is no place for a lock
    with exchange.locked(path):
        uncounted.refuse_any(path, read_info(path))
        yield open_source(path)


def open_source(path: Path) -> Source:
    """The dataset at `path` with its episodes; DatasetError when a recording was left open in it."""
    if (path / ASIDE / "open.json").exists():
        raise DatasetError(f"{path}: a recording was left open or is still running: `aloha dataset repair {path}`")
    source = Source(Dataset(path))
    if not source.dataset.episodes:
        raise DatasetError(f"{path} has no episodes")
    return source


def named(source: Source, words: Sequence[str]) -> list[int]:
    """The episodes that `words` name; DatasetError when they name none."""
    if not words:
        raise DatasetError("name the episodes, such as 3 or 7-9")
    return select(words, len(source.dataset.episodes))


def count(things: Sequence[object] | Mapping[int, object]) -> str:
    """`1 episode`, `3 episodes`."""
    return f"{len(things)} episode{'' if len(things) == 1 else 's'}"
