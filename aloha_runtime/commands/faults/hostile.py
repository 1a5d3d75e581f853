"""Files that somebody made to run a program of theirs: checkpoints, statistics, configurations, datasets.

Each leaves a mark when it fires; they are opened by what this runtime opens them with. That each is alive, firing under
plain unpickling or a full YAML loader, is shown by `tests/commands/test_hostile_corpus.py`.
"""

import json
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from aloha_runtime import config
from aloha_runtime.act import ACTPolicy
from aloha_runtime.act.importer import read_pickle, read_torch_file
from aloha_runtime.commands.faults.scenario import Family, Scenario, Trial
from aloha_runtime.data import Dataset
from aloha_runtime.errors import AlohaError


@dataclass(frozen=True)
class File:
    """One hostile file: its bytes for a mark, and how we open it."""

    make: Callable[[str], bytes]
    opened: Callable[[Path], object]


def _reduce(module: str, function: str, argument: str) -> Callable[[str], bytes]:
    """A pickle of protocol 0 that calls a function with one text; {mark} in it is the file to leave."""
    return lambda mark: f"c{module}\n{function}\n(S{argument.format(mark=mark)!r}\ntR.".encode()


def _listed(mark: str) -> bytes:
    """The same with a list of words, as subprocess takes them."""
    return f"csubprocess\ncall\n((lS'touch'\naS{mark!r}\natR.".encode()


def _hidden(mark: str) -> bytes:
    """Behind a good dictionary, as its last value."""
    return b"(dS'mean'\nF0.0\nsS'std'\n" + _reduce("os", "system", "touch {mark}")(mark)[:-1] + b"s."


def _object(mark: str) -> bytes:
    """Through the instruction OBJ."""
    return f"(cos\nsystem\nS'touch {mark}'\no.".encode()


def _instance(mark: str) -> bytes:
    """Through the instruction INST."""
    return f"(S'touch {mark}'\nios\nsystem\n.".encode()


def _archive(mark: str) -> bytes:
    """As torch.save writes it."""
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", _reduce("os", "system", "touch {mark}")(mark))
            archive.writestr("archive/version", "3\n")
        file.seek(0)
        return file.read()


def _yaml(text: str) -> Callable[[str], bytes]:
    return lambda mark: f"name: {text.format(mark=mark)}\nkit: aloha\narms: {{}}\ncameras: {{}}\n".encode()


OPEN = "open({mark!r}, 'w').close()"
FILES = {
    "checkpoint calls os.system": File(_reduce("os", "system", "touch {mark}"), read_torch_file),
    "checkpoint calls posix.system": File(_reduce("posix", "system", "touch {mark}"), read_torch_file),
    "checkpoint calls eval": File(_reduce("builtins", "eval", OPEN), read_torch_file),
    "checkpoint calls exec": File(_reduce("builtins", "exec", OPEN), read_torch_file),
    "checkpoint calls subprocess": File(_listed, read_torch_file),
    "checkpoint by OBJ": File(_object, read_torch_file),
    "checkpoint by INST": File(_instance, read_torch_file),
    "checkpoint in a zip": File(_archive, read_torch_file),
    "statistics call os.system": File(_reduce("os", "system", "touch {mark}"), read_pickle),
    "statistics hide it behind numbers": File(_hidden, read_pickle),
    "statistics call eval": File(_reduce("builtins", "eval", OPEN), read_pickle),
    "statistics call subprocess": File(_listed, read_pickle),
    "rig file applies os.system": File(
        _yaml("!!python/object/apply:os.system ['touch {mark}']"), lambda path: config.load(str(path))
    ),
    "rig file applies subprocess": File(
        _yaml("!!python/object/apply:subprocess.call [['touch', '{mark}']]"),
        lambda path: config.load(str(path)),
    ),
    "rig file makes an object": File(
        _yaml("!!python/object/new:os.system ['touch {mark}']"),
        lambda path: config.load(str(path)),
    ),
    "rig file applies eval": File(
        _yaml("!!python/object/apply:builtins.eval [\"open('{mark}', 'w').close()\"]"),
        lambda path: config.load(str(path)),
    ),
}


def _lie(name: str, header: object, folder: Path) -> Path:
    """A policy directory whose weights lie about themselves."""
    policy = folder / name
    policy.mkdir()
    (policy / "config.json").write_text('{"type": "act", "input_features": {}, "output_features": {}}')
    text = json.dumps(header).encode()
    (policy / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    return policy


def _dataset(name: str, folder: Path, **changes: object) -> Path:
    """A dataset's description that leads elsewhere."""
    dataset = folder / name
    (dataset / "meta").mkdir(parents=True)
    counters = {"timestamp": "float32"} | dict.fromkeys(
        ("frame_index", "episode_index", "index", "task_index"), "int64"
    )
    plain = {
        "codebase_version": "v3.0",
        "fps": 50,
        "total_episodes": 0,
        "total_frames": 0,
        "total_tasks": 0,
        "features": {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in counters.items()},
    }
    (dataset / "meta/info.json").write_text(json.dumps(plain | changes))
    return dataset


def lies(folder: Path) -> dict[str, Callable[[], object]]:
    """What would lead elsewhere or take all memory, by name; each must be refused."""
    tensor = {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 8]}}
    policies = {"weights larger than their file": _lie("large", tensor, folder), "no weights": _lie("none", [], folder)}
    datasets = {
        "data outside the dataset": _dataset("outside", folder, data_path="../../{chunk_index}/{file_index}"),
        "data at an absolute path": _dataset("absolute", folder, data_path="/etc/passwd"),
        "a template that looks inside objects": _dataset("template", folder, video_path="{video_key.__class__}"),
    }
    found: dict[str, Callable[[], object]] = {}
    for name, path in policies.items():
        found[name] = partial(ACTPolicy.from_pretrained, path)
    for name, path in datasets.items():
        found[name] = partial(Dataset, path)
    return found


def corpus(folder: Path, _chance: Random) -> Trial:
    """Open every file; the figure is how many ran something."""
    broken, fired = [], 0
    for number, (name, file) in enumerate(FILES.items()):
        path, mark = folder / f"{number}.{'yaml' if 'rig' in name else 'pt'}", folder / f"{number}.mark"
        path.write_bytes(file.make(str(mark)))
        broken += _refused(name, partial(file.opened, path))
        fired += mark.exists()
    for name, opened in lies(folder).items():
        broken += _refused(name, opened)
    if fired:
        broken.append(f"{fired} files ran their program")
    return Trial("; ".join(broken), float(fired))


def _refused(name: str, opened: Callable[[], object]) -> list[str]:
    try:
        opened()
    except AlohaError:
        return []
    return [f"{name}: it was not refused"]


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="aloha-faults-") as folder:
        yield Path(folder)


HOSTILE = Family(
    "hostile files",
    scratch,
    (
        Scenario(
            "hostile checkpoints, configurations, datasets",
            "nothing in them runs, each is refused by name",
            f"of {len(FILES) + 5} ran something",
            0.0,
            corpus,
        ),
    ),
)
