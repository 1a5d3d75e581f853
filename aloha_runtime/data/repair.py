"""`aloha dataset repair`: finish what our writer or edit left, examine what nobody counts, delete nothing else."""

from dataclasses import dataclass, field
from pathlib import Path

from aloha_runtime.data import exchange, layout, rows
from aloha_runtime.data.episode_store import EpisodeStore
from aloha_runtime.data.staging import SET_ASIDE, Staging, set_aside
from aloha_runtime.data.uncounted import Uncounted, examine
from aloha_runtime.data.writer import DatasetWriter


@dataclass
class Repaired:
    """`lines`: what was done and found; `is_sound`: nothing was set aside and nothing waits for a decision."""

    lines: list[str] = field(default_factory=list)
    is_sound: bool = True

    def found(self, line: str) -> None:
        self.lines.append(line)
        self.is_sound = False


def repair(path: Path, take: bool = False, leave: bool = False) -> Repaired:
    """Bring back the open episode, and examine every file that no episode counts. `take`: count whole episodes that
    are there; `leave`: set them aside. Raises DatasetError."""
    said = Repaired()
    if exchange.settle(path):
        said.lines.append("back in its place, from which an interrupted edit had taken it")
    layout.read_info(path)  # first: what is no dataset is no place for a lock
    with exchange.locked(path):
        waiting = _examined(path, said, take, leave)
    if waiting:
        said.found(f"{waiting} of this must be decided before anything is recorded or edited here")
        return said
    with DatasetWriter.open(path) as writer:
        frames, index = writer.recovered, writer.info.total_episodes - 1
    for moved in writer.set_aside:
        said.found(f"set aside: {moved.relative_to(path)}, which no journal of this program lists")
    found = f"episode {index} came back with {frames} frames" if frames else "nothing to bring back"
    said.lines.append(f"{found}; it holds {index + 1} episodes")
    return said


def _examined(path: Path, said: Repaired, take: bool, leave: bool) -> int:
    """How many findings wait for a decision."""
    info = layout.read_info(path)
    staging = Staging(path, info)
    staging.give_up_reserve()
    store = EpisodeStore(path, staging.folder, info)
    store.take_back(staging)
    found = examine(path, info)
    if take:
        for extra in found.extras:
            store.count(extra.frames, extra.tasks)
            said.lines.append(f"episode {extra.index}, {extra.frames} frames, is counted now")
        found = examine(path, store.info)
    elif leave:
        _leave(path, info, found)
    for file in found.rest:
        moved = set_aside(path, file)
        said.found(f"set aside: {file.relative_to(path)} is now {moved.relative_to(path)}; no episode counts it")
    for extra in found.extras:
        said.found(
            f"episode {extra.index} is whole ({extra.frames} frames, {'; '.join(extra.said)!r}), and {layout.INFO_PATH}"
            f" does not count it: `aloha dataset repair {path} --take` counts it, --leave moves it to {SET_ASIDE}/"
        )
    for file, why in found.hidden.items():
        said.found(f"{file.relative_to(path)} stays: it {why}. Correct that row in meta/episodes")
    if found.rows_beyond > 0:
        said.found(
            f"meta/episodes has {found.rows_beyond} rows more than {layout.INFO_PATH} counts, in tables of others"
        )
    staging.close()
    return len(found.extras) + len(found.hidden) + (found.rows_beyond > 0)


def _leave(path: Path, info: layout.Info, found: Uncounted) -> None:
    """Whole episodes that are not wanted go to the files that are set aside, where all of their files are their own."""
    counted = rows.counted_files(path, info)
    for extra in list(found.extras):
        if not extra.files & counted:
            found.rest += sorted(extra.files)
            found.extras.remove(extra)
