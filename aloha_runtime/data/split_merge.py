"""New datasets from the episodes of others, which stay as they are: split, merge and convert."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from aloha_runtime.data import exchange, layout
from aloha_runtime.data.conversion import Conversion
from aloha_runtime.data.damaged import reads_and_writes
from aloha_runtime.data.edit import Advance, count, named, open_source, with_notes
from aloha_runtime.data.layout import PICTURES, Feature
from aloha_runtime.data.pieces import Piece
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.rebuild import rebuild
from aloha_runtime.data.recorded import differences
from aloha_runtime.data.recording import ACTION
from aloha_runtime.data.units import flat_names
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
    first = sources[0].dataset
    for source in sources[1:]:
        before, now = _shape(first), _shape(source.dataset)
        if found := differences(before, now):
            remedies = _remedies(first, source.dataset)
            raise DatasetError(
                f"{source.dataset.path} does not fit {paths[0]}: {'; '.join(found)}. {' '.join(remedies)}".rstrip()
            )
    pieces = [piece for source in sources for piece in source.all()]
    return _make({out: pieces}, f"{out}: {count(pieces)} of {len(paths)} datasets", advance)


def convert(
    path: Path,
    out: Path,
    *,
    degrees: bool = False,
    arm_order: bool = False,
    rate: float | None = None,
    advance: Advance = lambda _: None,
) -> str:
    """A new dataset at `out` whose joints are in rad (`degrees`: they were in degrees), in the order of the contract by
    their names (`arm_order`), or at another `rate` (frames/s)."""
    source = open_source(path)
    info = source.dataset.info
    wanted = None if rate is None else Fraction(rate).limit_denominator(1001)
    change = Conversion(info, degrees, arm_order, None if wanted == info.rate else wanted)
    reordered = [key for key in info.vectors if change.order(key) is not None]
    if arm_order and not reordered:
        raise DatasetError(
            f"{path}: no vector has the joints of two ALOHA arms in another order; {ACTION} has"
            f" {', '.join(flat_names(info.features[ACTION].names)) if ACTION in info.features else 'no entry'}."
            " Give the joints their names first: `aloha dataset rename --joint OLD=NEW`."
        )
    if not (degrees or reordered or change.rate):
        raise DatasetError(f"{path}: nothing to convert: say --degrees, --arm-order or another --rate")
    said = [f"joints reordered in {', '.join(reordered)}"] if reordered else []
    said += ["degrees turned into rad, grippers as they were"] if degrees else []
    said += [f"{info.fps:g} frames/s resampled to {float(change.rate):g}"] if change.rate else []
    pieces = [source.whole(index, restat=change.rate is not None) for index in range(len(source.dataset.episodes))]
    return _make({out: pieces}, f"{out}: {count(pieces)}, {', '.join(said)}", advance, change)


def _shape(dataset: Dataset) -> dict[str, object]:
    """What must be the same of two datasets that become one, by its meaning: `{"motors": [...]}` names what `[...]`
    does, 50 is 50.0, and pictures have a size, whichever axis comes first."""
    return {
        "fps": dataset.info.rate,
        "robot_type": dataset.info.robot_type,
        **{key: _meaning(feature) for key, feature in sorted(dataset.features.items())},
    }


def _meaning(feature: Feature) -> dict[str, object]:
    if feature.dtype in PICTURES:
        return {"dtype": feature.dtype, "size": feature.size, "codec": _codec(feature.info)}
    return {"dtype": feature.dtype, "shape": feature.shape, "names": flat_names(feature.names)}


def _remedies(first: Dataset, second: Dataset) -> list[str]:
    """What brings the second dataset to the shape of the first, for each kind of difference."""
    mine, theirs, path = _shape(first), _shape(second), second.path
    found = []
    if mine["robot_type"] != theirs["robot_type"]:
        found.append(f"`aloha dataset rename {path} --robot-type {first.info.robot_type}` if it is the same robot.")
    if mine["fps"] != theirs["fps"]:
        found.append(f"`aloha dataset convert {path} NEW_FOLDER --rate {first.fps:g}` resamples it.")
    shared = [(each, second.features[key]) for key, each in first.features.items() if key in second.features]
    if any(_meaning(one).get("codec") != _meaning(other).get("codec") for one, other in shared):
        found.append("`aloha dataset reencode` makes codecs agree.")
    if any(_meaning(one).get("names") != _meaning(other).get("names") for one, other in shared):
        found.append("`aloha dataset rename --joint OLD=NEW` renames joints, `convert --arm-order` reorders them.")
    if first.cameras.keys() != second.cameras.keys():
        found.append("`aloha dataset rename --camera OLD=NEW` renames cameras.")
    return found


def _codec(info: Mapping[str, object] | None) -> object:
    return {name: (info or {}).get(f"video.{name}") for name in ("codec", "pix_fmt")}


def _make(made: Mapping[Path, Sequence[Piece]], said: str, advance: Advance, change: Conversion | None = None) -> str:
    """New datasets of these pieces, whole when they appear."""
    for out in made:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DatasetError(f"{out} already exists. Choose another path.")
    asides = {out: exchange.beside(out, "new") for out in made}
    with exchange.or_nothing(*asides.values()):
        notes = [rebuild(pieces, asides[out], advance=advance, change=change) for out, pieces in made.items()]
        for out, aside in asides.items():
            aside.rename(out)
    return with_notes(said, [note for each in notes for note in each])
