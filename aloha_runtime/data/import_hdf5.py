"""ALOHA HDF5 episodes into a LeRobot dataset, frame by frame, so that a long episode never lies in memory."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np

from aloha_runtime.data.damaged import reads_and_writes
from aloha_runtime.data.hdf5 import BASE_ACTION, BASE_NAMES, ChannelOrder, Hdf5Episode, episode_files
from aloha_runtime.data.layout import IMAGE_PREFIX
from aloha_runtime.data.progress import progress
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.writer import DatasetWriter
from aloha_runtime.errors import DatasetError
from aloha_runtime.robot import NAMES


@reads_and_writes
def import_hdf5(
    folder: Path,
    out: Path,
    *,
    task: str,
    fps: float = 50,
    channel_order: ChannelOrder | None = None,
    keep_base: bool | None = None,
    leave_out: Collection[str] = (),
    report: Callable[[str], None] = lambda line: None,
) -> Dataset:
    """Write every `episode_*.hdf5` of `folder`, in order of number, into a new dataset `out`.

    `channel_order`: of compressed frames, see `hdf5.ChannelOrder`. `keep_base`: whether Mobile ALOHA's base action
    becomes a feature of its own; must be said when there is one. `leave_out`: names inside the files, or of files, that
    are not taken. `report` hears of everything in the files that was not taken. Raises DatasetError, before anything is
    written, that names the file that is damaged or does not fit the others, and what inside it.
    """
    paths = [path for path in episode_files(folder) if path.name not in leave_out]
    if not paths:
        raise DatasetError(f"{folder}: every episode would be left out.")
    described = [_description(path, channel_order, leave_out) for path in paths]
    for path, found in zip(paths, described, strict=True):
        _refuse_other(path, found, paths[0], described[0])
    vectors, cameras, _ = described[0]
    if BASE_ACTION in vectors and keep_base is None:
        raise DatasetError(
            f"{paths[0]} has a {BASE_ACTION} (Mobile ALOHA), which the arms have no use for: keep it as a feature of"
            " its own (--keep-base) or ignore it (--ignore-base), but say which."
        )
    names = {name: BASE_NAMES if name == BASE_ACTION else NAMES for name in vectors if name != BASE_ACTION or keep_base}
    with DatasetWriter.create(out, vectors=names, cameras=cameras, fps=fps) as writer:
        for path in paths:
            with Hdf5Episode(path, channel_order, leave_out) as episode:
                _copy(episode, writer, keep_base=BASE_ACTION in names, task=task, report=report)
    files = [name for name in leave_out if name.endswith(".hdf5")]
    extra = list(dict.fromkeys(name for _, _, not_taken in described for name in not_taken))
    if (BASE_ACTION in vectors) and not keep_base:
        extra.append(BASE_ACTION)
    if files or extra:
        report(f"not taken: {', '.join([*files, *extra])}")
    return Dataset(out)


Description = tuple[tuple[str, ...], Mapping[str, tuple[int, int]], list[str]]
"""Names of the vectors, cameras with their (height, width), and what else the file holds."""


def _description(path: Path, channel_order: ChannelOrder | None, leave_out: Collection[str]) -> Description:
    with Hdf5Episode(path, channel_order, leave_out) as episode:
        for camera in episode.cameras:
            episode.frame(camera, 0)  # refuses a missing channel order, and the last frame a file that was cut off
            episode.frame(camera, episode.length - 1)
        base = (BASE_ACTION,) if episode.base_action is not None else ()
        return (*episode.vectors, *base), episode.cameras, episode.not_taken


def _refuse_other(path: Path, found: Description, first_path: Path, first: Description) -> None:
    for what, mine, theirs in (
        ("vectors", set(found[0]), set(first[0])),
        ("cameras", set(found[1].items()), set(first[1].items())),
    ):
        if mine != theirs:
            raise DatasetError(
                f"{path} differs from {first_path.name} in its {what}: {_told(mine) or 'none'} there,"
                f" {_told(theirs) or 'none'} in the first. Import them into separate datasets, or leave out what only"
                " some of them have (--leave-out)."
            )


def _told(values: set[str] | set[tuple[str, tuple[int, int]]]) -> str:
    return ", ".join(
        sorted(value if isinstance(value, str) else f"{value[0]} {value[1][1]}x{value[1][0]}" for value in values)
    )


def _copy(
    episode: Hdf5Episode, writer: DatasetWriter, *, keep_base: bool, task: str, report: Callable[[str], None]
) -> None:
    vectors = dict(episode.vectors)
    if keep_base and episode.base_action is not None:
        vectors[BASE_ACTION] = episode.base_action
    with progress(episode.path.name, episode.length, report) as advance:
        for step in range(episode.length):
            images = {IMAGE_PREFIX + camera: episode.frame(camera, step) for camera in episode.cameras}
            writer.add_frame({name: np.asarray(values[step]) for name, values in vectors.items()} | images)
            advance(1)
    number = writer.save_episode(task)
    report(f"{episode.path.name}: episode {number}, {episode.length} frames")
