"""Ctrl-C, SIGTERM and SIGKILL of the `aloha` command at many moments: nothing may be left of it.

`python tests/processes/soak_signals.py --rounds 50 --seed 1` prints one line a round; the tests do a handful.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from aloha_command import Aloha, nothing_left

from aloha_runtime import config

MARKS = {
    "start-up": ("", 8.0),
    "arming": ("armed: arm by operator", 2.0),
    "teleop": ("teleoperation runs", 1.0),
    "parking": ("parking the arms", 1.0),
}
"""Phase: what the command prints as it begins, and about how long it lasts (s)."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


@dataclass(frozen=True)
class Moment:
    """When which signal comes; `twice`: again, so many seconds later."""

    phase: str
    delay_s: float
    number: signal.Signals
    twice_s: float | None = None


def draw(generator: random.Random) -> Moment:
    """A random moment of a random phase."""
    phase = generator.choice(list(MARKS))
    twice = generator.choice([None, generator.uniform(0, 0.3)])
    return Moment(phase, generator.uniform(0, MARKS[phase][1]), generator.choice(SIGNALS), twice)


def small_rig(path: Path, clock: str, cameras: bool) -> Path:
    """A configuration file of the simulated rig."""
    rig = config.load("sim").model_dump(mode="json")
    rig["sim"]["clock"] = clock
    if not cameras:
        rig["cameras"] = {}
    path.write_text(yaml.safe_dump(rig))
    return path


def play(moment: Moment, rig: Path, run_dir: Path) -> tuple[int, str]:
    """One round: exit code, and what was left (or else went wrong); empty when nothing was."""
    aloha = Aloha(run_dir, "teleop", "--rig", str(rig), "--scripted", "--seed", "3")
    mark = MARKS[moment.phase][0]
    if moment.phase == "parking":
        aloha.said(MARKS["teleop"][0])
        aloha.send(signal.SIGINT)
    aloha.said(mark)
    time.sleep(moment.delay_s)
    aloha.send(moment.number)
    if moment.twice_s is not None:
        time.sleep(moment.twice_s)
        aloha.send(moment.number)
    code = aloha.end()
    wrong = nothing_left(run_dir, killed=moment.number == signal.SIGKILL)
    if "Traceback" in aloha.output and "KeyboardInterrupt" not in aloha.output:  # while Python itself starts
        wrong += f" traceback:\n{aloha.output}"
    return code, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clock", choices=["wall", "virtual"], default="wall")
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    folder = Path(tempfile.mkdtemp(prefix="aloha-soak-"))
    rig = small_rig(folder / "rig.yaml", arguments.clock, cameras=True)
    bad = 0
    for index in range(arguments.rounds):
        moment = draw(generator)
        code, wrong = play(moment, rig, folder / f"run{index}")
        bad += bool(wrong)
        print(f"{index:3} {moment} exit {code} {wrong or 'nothing left'}", flush=True)
    shutil.rmtree(folder)
    print(f"{bad} of {arguments.rounds} rounds left something")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
