"""Datasets by name on the Hugging Face hub: what `meta/info.json` counts goes there, and only data comes from there."""

import re
from pathlib import Path

from aloha_runtime.data import layout, owned, reports, rows
from aloha_runtime.data.reader import Dataset
from aloha_runtime.errors import DatasetError

PATTERNS = ["meta/**", "data/**/*.parquet", "videos/**/*.mp4"]
"""All that is ever downloaded."""


def push(path: Path, name: str, private: bool = False) -> str:
    """Upload the dataset as `user/dataset`, tagged so that LeRobot opens it by name. Raises DatasetError."""
    from huggingface_hub import HfApi

    _refuse_no_name(name)
    wanted = [str(file.relative_to(path)) for file in counted_files(path)]
    api = HfApi()
    try:
        api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(repo_id=name, repo_type="dataset", folder_path=path, allow_patterns=wanted)
        api.create_tag(name, tag=layout.VERSION, repo_type="dataset", exist_ok=True)
    except Exception as error:  # the client's releases raise what their HTTP library raises
        raise DatasetError(
            f"{path} was not uploaded as {name!r} ({_reason(error)}). Check the network, and log in: hf auth login"
        ) from error
    return f"{name}: {len(wanted)} files, tagged {layout.VERSION}"


def pull(name: str, path: Path, revision: str | None = None) -> str:
    """Download `user/dataset` to `path`, which must be absent; it appears when it is whole. Raises DatasetError."""
    from huggingface_hub import snapshot_download

    _refuse_no_name(name)
    if path.exists():
        raise DatasetError(f"{path} already exists. Choose another path.")
    aside = path.with_name(f".{path.name}.pull")
    if not owned.is_ours(aside):  # of an earlier try, to go on from
        owned.begin(aside)
    try:
        snapshot_download(name, repo_type="dataset", revision=revision, local_dir=aside, allow_patterns=PATTERNS)
    except Exception as error:  # the client's releases raise what their HTTP library raises
        raise DatasetError(
            f"dataset {name!r} cannot be had from the hub ({_reason(error)}). Check the name and the network; what has"
            " arrived is kept, so that the same command goes on from there."
        ) from error
    owned.remove_inside(aside, ".cache")
    try:
        found = Dataset(aside)
    except DatasetError:
        owned.remove(aside)
        raise
    aside.rename(path)
    owned.release(aside)
    return f"{path}: {found.info.total_episodes} episodes, {found.info.total_frames} frames"


def counted_files(path: Path) -> list[Path]:
    """Every file that the dataset counts, and its reports; DatasetError when one of them is missing."""
    dataset = Dataset(path)
    keys = dataset.info.video_keys
    episode_rows = rows.read_episode_rows(path, dataset.info.total_episodes, with_stats=False)
    found = sorted(rows.used_files(path, dataset.info, rows.places(episode_rows, keys)))
    found += [path / name for name in (layout.INFO_PATH, layout.STATS_PATH, layout.TASKS_PATH)]
    if missing := [file for file in found if not file.exists()]:
        raise DatasetError(f"{missing[0]} is missing. Restore it from a copy of the dataset.")
    extra = [file for _, file in reports.listed(path)] + [path / reports.RIG_PATH]
    return found + [file for file in extra if file.exists()]


def _refuse_no_name(name: str) -> None:
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise DatasetError(f"{name!r} is no name on the hub: write user/dataset")


def _reason(error: Exception) -> str:
    """Why the hub's client failed, in a few words."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        return "no network"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "it has no such dataset, or only for those who log in"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the dataset has no such revision"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
