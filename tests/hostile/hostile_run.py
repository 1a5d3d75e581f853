"""Open generated hostile inputs by every operation that reads them, in a child with limits: 0 tracebacks, 0 hangs.

    python tests/hostile/hostile_run.py --count 5000 [--seed 1] [--only v3] [--case 123]

Each case may use 2 s of CPU and 1 GB beyond what the program itself takes. One line for each case that failed, and a
table of all at the end; exit code 1 unless every case ended well or in one clear line.
"""

import argparse
import contextlib
import faulthandler
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

CPU_S, WALL_S, MEMORY = 2.0, 30.0, 1 << 30
"""The wall limit ends what waits for ever; a busy machine must not be taken for a hang."""
LONGEST_LINE = 4000
Case = dict[str, Any]


class Hang(BaseException):
    """The time is over."""


def operations() -> dict[str, dict[str, Callable[[Path, Path], object]]]:
    """By kind of input: name, and a function of the input's folder and an empty place for what it makes."""
    from aloha_runtime import config
    from aloha_runtime.act import ACTPolicy
    from aloha_runtime.act.dataset import TrainingData
    from aloha_runtime.act.observe import refuse_unfit
    from aloha_runtime.act.samples import LeRobotDataset
    from aloha_runtime.commands import log_show, preflight_checks
    from aloha_runtime.commands.dataset_info import info
    from aloha_runtime.data import Dataset
    from aloha_runtime.data.check import check
    from aloha_runtime.data.import_hdf5 import import_hdf5
    from aloha_runtime.data.import_v2 import import_v2
    from aloha_runtime.data.split_merge import merge
    from aloha_runtime.remote.keys import Keys

    rig = config.load("sim")
    good = Path(os.environ["HOSTILE_GOOD"])

    def read(path: Path, _out: Path) -> None:
        dataset = Dataset(path)
        assert dataset.stats is not None
        assert dataset.tasks is not None
        for key in dataset.info.vectors:
            dataset.vectors(key)
        for camera in dataset.cameras:
            dataset.images(camera, 0)

    def loaded(path: Path, _out: Path) -> None:
        samples = LeRobotDataset(path, {"action": [0.0, 0.02]})
        samples[0], samples[len(samples) - 1]

    def hdf5(path: Path, out: Path) -> None:
        for folder in sorted(path.iterdir()):
            import_hdf5(folder, out / folder.name, task="x", channel_order="swapped")

    def policy(path: Path, _out: Path) -> None:
        ACTPolicy.from_pretrained(path)

    def keys(path: Path, _out: Path) -> None:
        opened = Keys(path)
        opened.private(), opened.peer("gpu"), opened.allowed()

    def rigs(path: Path, _out: Path) -> None:
        for file in sorted(path.iterdir()):
            config.load(str(file))

    return {
        "v3": {
            "check": lambda path, _: check(path, decode=True),
            "info": lambda path, _: info(path, as_json=True),
            "read": read,
            "train": lambda path, out: TrainingData(path, None, out, lambda _: None),
            "loader": loaded,
            "merge": lambda path, out: merge([good / "v3", path], out / "m"),
        },
        "v2": {"import": lambda path, out: import_v2(path, out / "new")},
        "hdf5": {"import-hdf5": hdf5},
        "checkpoint": {
            "load": policy,
            "preflight": lambda path, _: preflight_checks.examine(path, rig),
            "deploy": lambda path, _: refuse_unfit(path, rig),
        },
        "log": {
            "show": lambda path, _: log_show.show("hold", path, None, True),
            "list": lambda path, _: log_show.listing(path),
        },
        "rig": {"config check": rigs, "limits": lambda path, _: config.load_limits(path / "sim.yaml")},
        "keys": {"keys": keys},
    }


SHARES = {"v3": 8, "v2": 4, "hdf5": 3, "checkpoint": 5, "log": 2, "rig": 3, "keys": 1}
"""How many of 26 cases are of each kind."""


@contextlib.contextmanager
def limits() -> Iterator[None]:
    """CPU time and memory of one case."""

    def over(_number: int, _frame: FrameType | None) -> None:
        raise Hang

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, CPU_S)
    faulthandler.dump_traceback_later(WALL_S, exit=True)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()


def one(number: int, seed: int, only: str, folder: Path, ways: dict[str, Any]) -> Case:
    """Make a case and try it."""
    import hostile_mutations

    from aloha_runtime.errors import AlohaError

    random = np.random.default_rng([seed, number])
    kinds = [kind for kind, share in SHARES.items() for _ in range(share) if only in ("", kind)]
    kind = kinds[int(random.integers(len(kinds)))]
    name = list(ways[kind])[int(random.integers(len(ways[kind])))]
    root, out = folder / "case" / kind, folder / "out"
    for place in (folder / "case", out):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    shutil.copytree(Path(os.environ["HOSTILE_GOOD"]) / kind, root)
    what = hostile_mutations.mutate(root, random)
    case = {"number": number, "kind": kind, "operation": name, "what": what, "ended": "fine", "said": ""}
    began, cpu = time.monotonic(), time.process_time()
    try:
        with limits(), contextlib.redirect_stdout(io.StringIO()):
            ways[kind][name](root, out)
    except AlohaError as error:
        case |= {"ended": "refused", "said": str(error)}
        if len(str(error)) > LONGEST_LINE or not str(error).strip():
            case["ended"] = "UNCLEAR"
    except Hang:
        case |= {"ended": "HANG", "said": traceback.format_exc()[-2500:]}
    except BaseException as error:
        case |= {
            "ended": "TRACEBACK",
            "said": f"{type(error).__name__}: {error}"[:300] + traceback.format_exc()[-2500:],
        }
    case |= {"wall_s": time.monotonic() - began, "cpu_s": time.process_time() - cpu}
    return case


def child(first: int, last: int, seed: int, only: str) -> None:
    """Cases one after the other, each as a line of JSON on the real standard output."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, str(Path(__file__).parent))
    folder = Path(os.environ["HOSTILE_GOOD"]).parent
    ways = operations()
    for number in range(first, last):
        print(number, file=said, flush=True)
        print(json.dumps(one(number, seed, only, folder, ways), default=str), file=said, flush=True)


def run(count: int, seed: int = 1, only: str = "", first: int = 0) -> list[Case]:
    """All cases; a child that dies is a case that failed, and another goes on behind it."""
    cases: list[Case] = []
    with tempfile.TemporaryDirectory(prefix="aloha-hostile-") as name:
        good = Path(name) / "good"
        good.mkdir()
        sys.path.insert(0, str(Path(__file__).parent))
        import hostile_originals

        hostile_originals.make_all(good)
        environment = {**os.environ, "HOSTILE_GOOD": str(good), "XDG_CACHE_HOME": name, "OMP_NUM_THREADS": "1"}
        number, end = first, first + count
        while number < end:
            command = [sys.executable, __file__, "--child", str(number), str(end), "--seed", str(seed), "--only", only]
            with tempfile.TemporaryFile("w+") as errors:
                done = subprocess.run(
                    command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, check=False
                )
                errors.seek(0)
                trouble = errors.read()[-3000:]
            lines = done.stdout.splitlines()
            cases += [json.loads(line) for line in lines if line.startswith("{")]
            number = end
            if done.returncode or not lines or lines[-1].isdigit():
                number = int(lines[-1]) if lines and lines[-1].isdigit() else end
                cases.append({"number": number, "kind": "?", "operation": "?", "what": "?", "ended": "DIED",
                              "said": f"{done.returncode} {trouble}", "wall_s": 0, "cpu_s": 0})  # fmt: skip
                number += 1
    return cases


def failed(cases: list[Case]) -> list[Case]:
    return [case for case in cases if case["ended"] not in ("fine", "refused")]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--case", type=int)
    parser.add_argument("--child", type=int, nargs=2)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child, arguments.seed, arguments.only)
        return
    first, count = (arguments.case, 1) if arguments.case is not None else (0, arguments.count)
    cases = run(count, arguments.seed, arguments.only, first)
    for case in failed(cases) if arguments.case is None else cases:
        print(json.dumps({**case, "said": ""}), "\n", case["said"], "\n", sep="")
    print(Counter((case["kind"], case["operation"], case["ended"]) for case in cases))
    print(Counter(case["ended"] for case in cases), "longest", max(case["cpu_s"] for case in cases), "s of CPU")
    sys.exit(bool(failed(cases)))


if __name__ == "__main__":
    main()
