"""New datasets from the episodes of others, which stay as they are: split and merge."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from aloha_runtime.data import exchange, layout
from aloha_runtime.data.damaged import reads_and_writes
from aloha_runtime.data.edit import Advance, count, named, open_source, with_notes
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.rebuild import Piece, rebuild
from aloha_runtime.data.recorded import differences
from aloha_runtime.errors import DatasetError


@reads_and_writes
def split(
    path: Path, first_out: Path, second_out: Path, words: Sequence[str], advance: Advance = lambda _: None
) -> str:
    """Episodes that `words` name as one new dataset, the others as a second; `path` stays as it is."""
    source = open_source(path)
    chosen = named(source, words)
    first = [piece for piece in source.all() if piece.index in chosen]
    second = [piece for piece in source.all() if piece.index not in chosen]
    if not second:
        raise DatasetError(f"{path}: every episode would go to {first_out}. Name fewer of them.")
    if first_out.resolve() == second_out.resolve():
        raise DatasetError(f"both parts would go to {first_out}. Name two folders.")
    said = f"{first_out}: {count(first)}, {second_out}: {count(second)}"
    return _make({first_out: first, second_out: second}, said, advance)


def first_episodes(path: Path, at: int | None, share: float | None) -> list[str]:
    """The episodes before number `at`, or the first `share` of all, as words."""
    total = layout.read_info(path).total_episodes
    end = at if at is not None else round((share or 0.0) * total)
    if not 0 < end < total:
        raise DatasetError(f"{path} has {total} episodes: split it at 1 to {total - 1}, not at {end}")
    return [f"0-{end - 1}"]


@reads_and_writes
def merge(paths: Sequence[Path], out: Path, advance: Advance = lambda _: None) -> str:
    """Datasets one after the other as a new one. What does not fit together is refused by name."""
    sources = [open_source(path) for path in paths]
    for source in sources[1:]:
        found = differences(_shape(sources[0].dataset), _shape(source.dataset))
        if found:
            raise DatasetError(
                f"{source.dataset.path} does not fit {paths[0]}: {'; '.join(found)}. `aloha dataset reencode` makes"
                " codecs agree; other differences need a dataset of their own."
            )
    pieces = [piece for source in sources for piece in source.all()]
    return _make({out: pieces}, f"{out}: {count(pieces)} of {len(paths)} datasets", advance)


def _shape(dataset: Dataset) -> dict[str, object]:
    """What must be the same of two datasets that become one."""
    return {
        "fps": dataset.fps,
        "robot_type": dataset.info.robot_type,
        **{
            key: {"dtype": feature.dtype, "shape": feature.shape, "names": feature.names, "codec": _codec(feature.info)}
            for key, feature in sorted(dataset.features.items())
        },
    }


def _codec(info: Mapping[str, object] | None) -> object:
    return {name: (info or {}).get(f"video.{name}") for name in ("codec", "pix_fmt")}


def _make(made: Mapping[Path, Sequence[Piece]], said: str, advance: Advance) -> str:
    """New datasets of these pieces, whole when they appear."""
    for out in made:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DatasetError(f"{out} already exists. Choose another path.")
    asides = {out: exchange.beside(out, "new") for out in made}
    with exchange.or_nothing(*asides.values()):
        notes = [rebuild(pieces, asides[out], advance=advance) for out, pieces in made.items()]
        for out, aside in asides.items():
            aside.rename(out)
    return with_notes(said, [note for each in notes for note in each])
