"""HDF5 files that lead to other files, refused by name before anything of them is read.

HDF5 has four ways out of a file: external links, external storage of a dataset's bytes, virtual datasets made of parts
of other files, and links of a kind that a plug-in defines. Soft links stay inside but show one thing under the name of
another, and they may lead to an external link; no recorder of ALOHA writes them.
"""

from pathlib import Path

import h5py

from aloha_runtime.errors import DatasetError

MOST_OBJECTS = 10_000
"""Objects of a file; an episode of ALOHA has about ten."""


def refuse_links(path: Path, file: h5py.File) -> None:
    """DatasetError that names the first entry of the file that leads elsewhere."""
    waiting: list[tuple[str, h5py.Group]] = [("", file)]
    seen = {h5py.h5o.get_info(file.id).addr}
    while waiting:
        inside, group = waiting.pop()
        for name in group:
            where = f"{inside}{name}"
            try:
                kind = type(group.get(name, getlink=True))
            except (TypeError, RuntimeError):
                raise _refused(path, where, "a link of a kind that a plug-in defines") from None
            if kind is h5py.ExternalLink:
                raise _refused(path, where, "an external link, which leads to another file")
            if kind is not h5py.HardLink:
                raise _refused(path, where, "a soft link, which shows another entry under this name")
            found = group[name]
            if isinstance(found, h5py.Dataset):
                _refuse_storage(path, where, found)
            address = h5py.h5o.get_info(found.id).addr
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > MOST_OBJECTS:
                raise DatasetError(
                    f"{path} has more than {MOST_OBJECTS} entries: it is no ALOHA episode. Leave it out."
                )
            if isinstance(found, h5py.Group):
                waiting.append((f"{where}/", found))


def _refuse_storage(path: Path, where: str, dataset: h5py.Dataset) -> None:
    if dataset.is_virtual:
        raise _refused(path, where, "a virtual dataset, made of parts of other files")
    if dataset.external:
        raise _refused(path, where, "stored externally: its bytes are those of another file")


def _refused(path: Path, where: str, what: str) -> DatasetError:
    return DatasetError(
        f"{path}: {where} is {what}. Do not use this file unless you know who wrote it; `h5repack` or a copy by h5py"
        " brings such parts into the file itself."
    )
