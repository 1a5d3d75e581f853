"""Paths that a dataset's description makes of templates, numbers and names: none of them leads out of its folder.

A template fills in `{name}` and `{name:0Nd}` and nothing else: any other conversion could make a path of a harmless
name (the first two characters of `..x`, the character of a number). What comes out is looked at once more.
"""

import re
import string
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from aloha_runtime import inside
from aloha_runtime.errors import DatasetError

FORMAT = re.compile(r"|0[1-6]d")
"""What may stand behind a name: nothing, or a number filled up with zeros to at most six digits."""
NUMBERS = ("file_index", "episode_index")
"""One of them tells a file from the next: a template without it would have every episode in the place of the first."""
OURS = (".writing", ".set-aside", "meta")
"""Where frames and videos never lie: what is there belongs to the writer or to the tables."""


def filled(root: Path, template: str, **values: str | int) -> Path:
    """The path below `root` that a template makes of these values; DatasetError for one that leads elsewhere."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, str if name == "video_key" else int):
            raise DatasetError(f"{root}: {name} is {value!r}; it must be a number. Restore the dataset from a copy.")
    try:
        made = template.format(**values)
    except (ValueError, IndexError, KeyError, AttributeError):
        made = ""
    if not _is_inside(made):
        raise DatasetError(
            f"{root}: {template!r} makes {made!r} of {values}, which is no path inside the dataset. Do not use this"
            " dataset unless you know who wrote it."
        )
    return root / made


def refuse_keys_outside(path: Path, keys: Collection[str]) -> None:
    """Keys of features become names of files: DatasetError for one that leads elsewhere. `path`: who says so."""
    for key in keys:
        if not _is_inside(key) or "/" in key or key.startswith(".") or len(key) > 128:
            raise DatasetError(
                f"{path}: feature {key!r} would be a path outside the dataset. Do not use this dataset unless you know"
                " who wrote it; rename that feature."
            )


def refuse_path_outside(path: Path, entry: str, template: str, names: Collection[str]) -> None:
    """Files of a dataset lie inside it, whatever its description at `path` says: DatasetError unless the template fills
    in these `names`, plainly, and leads nowhere else."""
    if not _is_plain(template, names):
        raise DatasetError(
            f"{path}: {entry} is {template!r}; it must be a path inside the dataset made of {', '.join(names)}, each"
            " as {name} or, for numbers, {name:03d}. Do not use this dataset unless you know who wrote it; correct that"
            " entry."
        )


def _is_plain(template: str, names: Collection[str]) -> bool:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:
        return False
    fields = [(field, spec or "", conversion) for _, field, spec, conversion in parts if field is not None]
    for field, spec, conversion in fields:
        wanted = "" if field == "video_key" else spec
        if field not in names or conversion is not None or spec != wanted or not FORMAT.fullmatch(spec):
            return False
    top = PurePosixPath(template).parts[:1]
    if not top or "{" in top[0] or top[0] in OURS or not any(field in NUMBERS for field, _, _ in fields):
        return False
    return _is_inside(template.format(**{name: "x" if name == "video_key" else 0 for name in names}))


def _is_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    plain = bool(pure.parts) and all(ord(character) >= 32 for character in path)
    return plain and not pure.is_absolute() and ".." not in pure.parts


def refuse_links(root: Path, *templates: str) -> None:
    """DatasetError that names the first link among a dataset's own files and folders: it may lead anywhere, and what
    it leads to would be read, replaced and deleted as part of the dataset."""
    tops = dict.fromkeys([*OURS, "data", "videos", *(PurePosixPath(template).parts[0] for template in templates)])
    found = next(inside.links(root, *tops), None)
    if found is not None:
        raise DatasetError(
            f"{found} is a link, and a dataset's files lie in its own folder. Put a copy of what it leads to in its"
            f" place (`cp --recursive --dereference {root} COPY` makes a dataset without links)."
        )
