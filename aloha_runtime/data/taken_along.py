"""What lies in a dataset's folder and is no part of the dataset: every edit takes it along as it is."""

import shutil
from collections.abc import Callable
from pathlib import Path

from aloha_runtime.data import layout, reports
from aloha_runtime.data.layout import read_info
from aloha_runtime.data.pieces import link
from aloha_runtime.data.rows import counted_files
from aloha_runtime.data.staging import ASIDE

TABLES = (layout.INFO_PATH, layout.STATS_PATH, layout.TASKS_PATH, reports.RIG_PATH)
WRITTEN_ANEW = {"data", "videos", "meta", ASIDE, ".cache"}
"""What of a dataset's folder belongs to the dataset; anything else (a README, notes) goes along as it is."""


def with_the_rest(path: Path, build: Callable[[Path], None]) -> Callable[[Path], None]:
    """`build`, and what else lies in the folder at `path`."""

    def build_all(aside: Path) -> None:
        build(aside)
        for entry in sorted(path.iterdir()):
            if entry.name not in WRITTEN_ANEW:
                _take_along(entry, aside / entry.name)
        rewritten = counted_files(path, read_info(path)) | {report for _, report in reports.listed(path)}
        rewritten |= {path / name for name in TABLES}
        for top in ("meta", "data", "videos"):
            for entry in sorted((path / top).rglob("*")):
                target = aside / entry.relative_to(path)
                if not (entry.is_dir() or entry in rewritten or target.exists()):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _take_along(entry, target)

    return build_all


def _take_along(entry: Path, target: Path) -> None:
    """A file, folder or link that is no part of the dataset; what a link leads to is not looked at."""
    if entry.is_symlink():
        target.symlink_to(entry.readlink())
    elif entry.is_dir():
        shutil.copytree(entry, target, symlinks=True, copy_function=lambda a, b: link(Path(a), Path(b)))
    elif entry.is_file():
        link(entry, target)
