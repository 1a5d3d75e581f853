"""Other names for what a dataset holds: cameras, robot type, joints and tasks. No number and no picture changes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from aloha_runtime.data import files, layout, reports, rows, statistics
from aloha_runtime.data.edit import replace_with
from aloha_runtime.data.episode_store import pretty_json
from aloha_runtime.data.layout import Feature, Info
from aloha_runtime.data.paths import refuse_keys_outside
from aloha_runtime.data.pieces import Source, link
from aloha_runtime.data.staging import ASIDE
from aloha_runtime.data.units import flat_names
from aloha_runtime.errors import DatasetError


@dataclass(frozen=True)
class Names:
    """Old names to new ones."""

    cameras: Mapping[str, str] = field(default_factory=dict)
    joints: Mapping[str, str] = field(default_factory=dict)
    tasks: Mapping[str, str] = field(default_factory=dict)
    robot_type: str | None = None


def pairs(words: list[str]) -> dict[str, str]:
    """`["top=cam_high"]` as a mapping; DatasetError for a word of another form, or a name that is given twice."""
    found: dict[str, str] = {}
    for word in words:
        old, given, new = (part.strip() for part in word.partition("="))
        if not (given and old and new) or old in found or new in found.values():
            raise DatasetError(f"{word!r}: write each name once, as OLD=NEW")
        found[old] = new
    return found


def rename(path: Path, names: Names, advance: Callable[[int], None] = lambda _: None) -> str:
    """Give what the dataset at `path` holds other names; returns a line for people. `undo` brings the old ones back."""
    changed = [
        *(f"camera {old} is {new}" for old, new in names.cameras.items()),
        *(f"joint {old} is {new}" for old, new in names.joints.items()),
        *(f"task {old!r} is {new!r}" for old, new in names.tasks.items()),
        *([f"robot type is {names.robot_type}"] if names.robot_type else []),
    ]
    if not changed:
        raise DatasetError("say what is to be renamed: --camera, --joint, --task (each OLD=NEW) or --robot-type")

    def build(source: Source, aside: Path) -> None:
        _write(source, _keys(source, names), names, aside, advance)

    return replace_with(path, build, "; ".join(changed))


def _keys(source: Source, names: Names) -> dict[str, str]:
    """Each feature to its new key; DatasetError for a name that is not there or taken."""
    info, path = source.dataset.info, source.dataset.path
    pictures = {layout.camera_name(key): key for key, each in info.features.items() if each.dtype in layout.PICTURES}
    keys = {key: key for key in info.features}
    for old, new in names.cameras.items():
        if old not in pictures:
            raise DatasetError(f"{path} has no camera {old!r}; it has: {', '.join(pictures) or 'none'}.")
        keys[pictures[old]] = layout.IMAGE_PREFIX + new.removeprefix(layout.IMAGE_PREFIX)
    refuse_keys_outside(path, keys.values())
    if len(set(keys.values())) < len(keys):
        raise DatasetError(f"{path}: two features would have one name. Choose another new name.")
    joints = {name for feature in info.features.values() for name in flat_names(feature.names)}
    for known, what, asked in ((joints, "joint", names.joints), (set(source.dataset.tasks), "task", names.tasks)):
        if unknown := [name for name in asked if name not in known]:
            raise DatasetError(f"{path} has no {what} {unknown[0]!r}; it has: {', '.join(sorted(known)) or 'none'}.")
    new_tasks = [names.tasks.get(task, task) for task in source.dataset.tasks]
    if len(set(new_tasks)) < len(new_tasks):
        raise DatasetError(f"{path}: two tasks would have one name: `aloha dataset relabel` joins them.")
    return keys


def _described(info: Info, keys: Mapping[str, str], names: Names) -> Info:
    described = {}
    for key, feature in info.features.items():
        flat = flat_names(feature.names)
        renamed = [names.joints.get(name, name) for name in flat]
        if len(set(renamed)) < len(renamed) == len(set(flat)):
            raise DatasetError(f"{key}: two of its numbers would have one name. Choose another new name.")
        kept = feature.names if renamed == flat or feature.dtype in layout.PICTURES else renamed
        described[keys[key]] = Feature(feature.dtype, feature.shape, kept, feature.info)
    return msgspec.structs.replace(info, features=described, robot_type=names.robot_type or info.robot_type)


def _write(source: Source, keys: Mapping[str, str], names: Names, out: Path, advance: Callable[[int], None]) -> None:
    dataset, aside = source.dataset, out / ASIDE
    root, info, now = dataset.path, dataset.info, _described(dataset.info, keys, names)
    with files.all_at_once():
        aside.mkdir(parents=True)
        for path in dict.fromkeys(episode.data_path for episode in dataset.episodes):
            target = out / path.relative_to(root)
            table = rows.read_table(path)
            columns = [keys.get(name, name) for name in table.column_names]
            if columns == table.column_names:
                _link(path, target)
            else:
                files.publish_table(table.rename_columns(columns), aside / "data.parquet", target)
        found = rows.read_episode_rows(root, info.total_episodes, with_stats=True)
        for key in info.video_keys:
            head = f"videos/{key}/"
            for place in {(row[head + "chunk_index"], row[head + "file_index"]) for row in found}:
                _link(layout.video_file(root, info, key, *place), layout.video_file(out, now, keys[key], *place))
        _write_episodes(found, keys, names, out)
        advance(len(found))
        tasks = [names.tasks.get(task, task) for task in dataset.tasks]
        files.publish_table(rows.tasks_table(tasks), aside / "tasks.parquet", out / layout.TASKS_PATH)
        stats = {keys.get(key, key): each for key, each in dataset.stats.items()}
        files.publish_bytes(pretty_json(statistics.to_json(stats)), aside / "stats.json", out / layout.STATS_PATH)
        for path in [*(each for _, each in reports.listed(root)), root / reports.RIG_PATH]:
            if path.exists():
                _link(path, out / path.relative_to(root))
        files.publish_bytes(pretty_json(now), aside / "info.json", out / layout.INFO_PATH)
        aside.rmdir()


def _write_episodes(found: list[dict[str, Any]], keys: Mapping[str, str], names: Names, out: Path) -> None:
    """Each row in a file of the number that it has, as it was or alone."""
    heads = {f"{kind}/{old}/": f"{kind}/{new}/" for kind in ("videos", "stats") for old, new in keys.items()}

    def column(name: str) -> str:
        return next((new + name.removeprefix(old) for old, new in heads.items() if name.startswith(old)), name)

    for number, row in enumerate(found):
        renamed = {column(name): value for name, value in row.items() if value is not None}
        renamed["tasks"] = [names.tasks.get(task, task) for task in row["tasks"]]
        place = (number // 1000, number % 1000)
        renamed |= {"meta/episodes/chunk_index": place[0], "meta/episodes/file_index": place[1]}
        target = layout.episodes_file(out, *place)
        files.publish_table(rows.episode_table(renamed), out / ASIDE / "episode.parquet", target)


def _link(path: Path, target: Path) -> None:
    files.make_directory(target.parent)
    link(path, target)
