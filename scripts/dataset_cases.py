"""What every dataset command makes of a folder of small damaged or unusual datasets, as a Markdown table.

    python scripts/dataset_cases.py FOLDER

FOLDER holds KIND/NAME, each a LeRobot v2.1 or v3.0 dataset or a folder of ALOHA HDF5 episodes. Every input is copied
before anything is done to it. A refusal is one line of a DatasetError or TrainingError; anything else that is raised
counts as a traceback.
"""

import io
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from aloha_runtime.data import edit, split_merge
from aloha_runtime.data.check import check
from aloha_runtime.data.import_hdf5 import import_hdf5
from aloha_runtime.data.import_v2 import import_v2
from aloha_runtime.data.reader import Dataset
from aloha_runtime.errors import AlohaError

LONGEST = 230
"""Characters of an answer that are shown."""


def main(folder: Path) -> None:
    print("| input | step | answer |\n|---|---|---|")
    for source in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        with tempfile.TemporaryDirectory() as work:
            place = Path(work) / source.name
            shutil.copytree(source, place)
            for step, job in _steps(source, place):
                answer = re.sub(r"\s+", " ", _answer(job)).replace(work, "").replace(str(folder), "").replace("|", "/")
                print(f"| `{source.parent.name}/{source.name}` | {step} | {answer[:LONGEST]} |")


def _steps(source: Path, place: Path) -> list[tuple[str, Callable[[], object]]]:
    out = place.with_name("out")
    if not (place / "meta").is_dir():
        return [("import-hdf5", lambda: _hdf5(place, out)), ("check of the result", lambda: _check(out))]
    version = json.loads((place / "meta/info.json").read_text())["codebase_version"]
    if version.startswith("v2"):
        return [
            ("import", lambda: import_v2(place, out)),
            (
                "import --leave-out-episode",
                lambda: import_v2(place, out.with_name("less"), leave_out_episodes=[_bad(place)]),
            ),
            ("check of the result", lambda: _check(out if out.exists() else out.with_name("less"))),
        ]
    steps: list[tuple[str, Callable[[], object]]] = [("check", lambda: _check(place)), ("train", lambda: _train(place))]
    kind = source.parent.name
    if kind == "repair_deletes":
        steps.append(("repair", lambda: _repair(place)))
    elif kind == "merge_names" and source.name != "v3base":
        base = source.with_name("v3base")
        steps.append(("merge with v3base", lambda: split_merge.merge([base, place], out)))
        steps.append(("rename --robot-type aloha, merge", lambda: _renamed(place, base, out)))
    elif kind == "scrambled_rows":
        steps.append(("stats, then check", lambda: f"{edit.restat(place)}; {_check(place)}"))
    elif kind == "nested_names_skip_checks":
        steps.append(("convert --arm-order, train", lambda: _reordered(place, out)))
    elif kind == "resume_other_dataset":
        base = source.parents[1] / "merge_names" / "v3base"
        steps.append(("resume on v3base", lambda: _resume(place, base, out)))
    else:
        steps.append(("trim 0 from 0.1 s", lambda: _edited(place)))
    return steps


def _bad(place: Path) -> int:
    """The episode to leave out: one that is not listed, else the second."""
    listed = [json.loads(line)["episode_index"] for line in (place / "meta/episodes.jsonl").read_text().splitlines()]
    return next((index for index in range(3) if index not in listed), 1)


def _answer(job: Callable[[], object]) -> str:
    quiet = io.StringIO()
    try:
        with redirect_stdout(quiet), redirect_stderr(quiet):
            return str(job() or "done")
    except AlohaError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"TRACEBACK: {type(error).__name__}: {error}"


def _hdf5(place: Path, out: Path) -> str:
    said: list[str] = []
    import_hdf5(place, out, task="do it", channel_order="rgb", report=said.append)
    return "; ".join(line for line in said if "episode_1" not in line)


def _check(path: Path) -> str:
    found = [str(finding) for finding in check(path)]
    return f"{len(found)} findings: {'; '.join(found)}" if found else "all is well"


def _train(path: Path) -> str:
    from aloha_runtime.act.dataset import TrainingData

    data = TrainingData(path, None, path.with_name("cache"), lambda _: None)
    return f"takes {len(data.vectors['action'])} frames, cameras {', '.join(data.cameras) or 'none'}"


def _repair(path: Path) -> str:
    from aloha_runtime.data.writer import DatasetWriter

    before = sorted(path.rglob("*.parquet")) + sorted(path.rglob("*.mp4"))
    with DatasetWriter.open(path):
        pass
    gone = [str(file.relative_to(path)) for file in before if not file.exists()]
    return f"files gone: {', '.join(gone) or 'none'}"


def _edited(path: Path) -> str:
    before = Dataset(path)
    fps, frames = before.fps, before.episodes[0].length
    said = edit.trim(path, 0, 0.1, None, still=False)
    now = Dataset(path)
    reached = frames - round(0.1 * fps)
    told = f"{said}; fps {now.fps}; " + ("" if now.episodes[0].length == reached else "FRAMES LOST; ")
    return told + _check(path)


def _renamed(path: Path, base: Path, out: Path) -> str:
    from aloha_runtime.data.rename import Names, rename

    rename(path, Names(robot_type="aloha"))
    return split_merge.merge([base, path], out)


def _reordered(path: Path, out: Path) -> str:
    split_merge.convert(path, out, arm_order=True)
    return _train(out)


def _resume(first: Path, second: Path, out: Path) -> str:
    from aloha_runtime.act.train import train
    from aloha_runtime.act.train_config import TrainConfig

    policy = {
        "chunk_size": 5, "n_action_steps": 5, "dim_model": 32, "n_heads": 2, "dim_feedforward": 32,
        "n_encoder_layers": 1, "n_vae_encoder_layers": 1, "latent_dim": 4, "pretrained_backbone": False,
    }  # fmt: skip
    common = {"output_dir": out, "policy": policy, "batch_size": 2, "num_workers": 0, "curves": False}
    common |= {"tensorboard": False, "device": "cpu", "eval_freq": 100, "save_freq": 100}
    train(TrainConfig(dataset=first, steps=1, **common), lambda _: None)
    said: list[str] = []
    train(TrainConfig(dataset=second, steps=2, resume=True, **common), said.append)
    return "; ".join(said)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
