"""`aloha record`: fifty demonstrations with both hands on the leaders, each on disk before the next begins.

This is the operator's side: it brings the arms to the start pose, tells what to do next, and turns keys and pedal into
requests. Recording itself is the recorder's (`processes/recorder.py`), which goes on whatever becomes of this program.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from aloha_runtime import config, messages
from aloha_runtime.bus import RECORDER, Closeable
from aloha_runtime.commands import going_on, operate
from aloha_runtime.commands.cues import Cues
from aloha_runtime.commands.orders import KEYS, Orders
from aloha_runtime.commands.stack import Stack
from aloha_runtime.config import RigConfig
from aloha_runtime.control.events import ROUTINE
from aloha_runtime.data import recorded
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.session import LEAST_FREE_BYTES
from aloha_runtime.errors import AlohaError, ConfigError, DatasetError, ProcessError, ShutDown
from aloha_runtime.messages import MOVING, Health, Mode, RecorderState, Request
from aloha_runtime.processes.table import Job

EPISODE_BYTES = 25_000_000
"""Where a dataset has no episode to go by: 20 s of four 640x480 cameras at 2.5 Mb/s each."""
FIRST_SEED = 1000
"""Scripted demonstrations: evaluations take seeds from 0, and no demonstration may show them."""
DISCARD_MS = 250
NEXT_TIMEOUT_S = 3600.0
"""A person may take their time to set the scene up."""


@dataclass
class Wishes:
    """What was asked for on the command line."""

    dataset: Path
    task: str
    episodes: int
    scripted: bool = False
    seed: int | None = None
    resume: bool = False
    continuous: str = ""
    policy: str = ""
    takeover: bool = False


def record(wishes: Wishes, rig_name: str, sim_task: str | None, run_dir: Path | None) -> None:
    """Record until there are `episodes` new ones, or until the operator ends it. Raises AlohaError."""
    console = Console(highlight=False)
    refuse_senseless(wishes)
    rig = operate.with_takeover(operate.with_task(config.load(rig_name), wishes.seed, sim_task), wishes.takeover)
    if wishes.scripted and rig.sim is None:
        raise ConfigError(f"--scripted needs the simulated rig, and {rig.name} is a real one: use --rig sim")
    if not wishes.policy:
        operate.refuse_without_leaders(rig)
    else:
        from aloha_runtime.commands.preflight import look_at_files  # brings torch, which others have no use for

        look_at_files(wishes.policy, rig, console)
    arguments = ["--dataset", str(wishes.dataset.absolute()), "--task", wishes.task, "--continuous", wishes.continuous]
    arguments += ["--intervenes"] if wishes.policy else []
    stack = Stack(rig, job_of(wishes), run_dir, wishes.policy, console.print, recording=tuple(arguments))
    there = open_dataset(wishes, rig)
    refuse_full_disk(wishes.dataset, there, wishes.episodes)
    session: RecordingSession | None = None

    def go_on() -> str:
        kept = session.kept if session is not None else 0
        return f"{kept} new episodes are in {wishes.dataset}; to go on: {going_on.again(wishes.episodes - kept)}"

    with (
        going_on.told(go_on),
        stack,
        Cues(rig.recording.cue, stack.say) as cues,
        Orders(rig.recording, stack.say) as orders,
        RecordingSession(stack, wishes, cues, orders) as running,
    ):
        session = running
        kept = session.run()
    total = len(Dataset(wishes.dataset).episodes)
    look = f". Look at them: aloha dataset view {wishes.dataset}" if total else ""
    console.print(f"{kept} episodes recorded; {wishes.dataset} holds {total}{look}", soft_wrap=True)


def refuse_senseless(wishes: Wishes) -> None:
    """Raise ConfigError for wishes that contradict each other."""
    if wishes.takeover and not wishes.policy:
        raise ConfigError("--takeover takes over from a policy: add --policy NAME, or leave out --takeover")
    if wishes.scripted and wishes.policy and not wishes.takeover:
        raise ConfigError(
            f"--scripted plays the person at the leaders, and nobody leads while --policy {wishes.policy} moves the"
            " arms: add --takeover (the script takes over and hands back), or leave out --scripted"
        )
    if wishes.scripted and wishes.continuous:
        raise ConfigError("--scripted plays one demonstration for each episode: leave out --continuous")


def job_of(wishes: Wishes) -> Job:
    """Who moves the arms."""
    if wishes.policy:
        return Job.CORRECT if wishes.scripted else Job.DEPLOY
    return Job.DEMONSTRATE if wishes.scripted else Job.TELEOP


def open_dataset(wishes: Wishes, rig: RigConfig) -> int:
    """Make the dataset, or see that this rig may continue it; returns how many episodes it has."""
    if not wishes.task.strip():
        raise ConfigError("--task is empty: say in a few words what the episodes show")
    if not wishes.dataset.exists():
        recorded.create(wishes.dataset, rig, _environment(rig))
        return 0
    episodes = len(Dataset(wishes.dataset).episodes)
    if episodes and not wishes.resume:
        raise DatasetError(
            f"{wishes.dataset} holds {episodes} episodes: add --resume to continue it, or choose another path"
        )
    recorded.refuse_other_rig(wishes.dataset, rig)
    return episodes


def _environment(rig: RigConfig) -> list[str]:
    """Names of where the objects are, on the simulated rig."""
    if rig.sim is None:
        return []
    from aloha_runtime.sim.tasks import environment_names  # brings MuJoCo, which a robot PC has not

    return environment_names(rig.sim.task)


def refuse_full_disk(path: Path, episodes: int, wanted: int) -> None:
    """Raise DatasetError naming how many episodes still fit when that is less than are wanted."""
    free = shutil.disk_usage(path).free - LEAST_FREE_BYTES
    used = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    each = used / episodes if episodes else EPISODE_BYTES
    fits = max(0, int(free / each))
    if fits < wanted:
        raise DatasetError(
            f"the disk of {path} has room for {fits} episodes of {each / 1e6:.0f} MB, {wanted} are wanted: free"
            f" {(wanted - fits) * each / 1e9:.1f} GB, choose another disk, or ask for --episodes {fits}"
        )


class RecordingSession(Closeable):
    """From the start pose to the last episode. Times are the stack's own clock's."""

    def __init__(self, stack: Stack, wishes: Wishes, cues: Cues, orders: Orders) -> None:
        self.stack, self.wishes, self.cues, self.orders = stack, wishes, cues, orders
        self.recorder = stack.bus.subscribe(messages.RECORDER)
        self.client = stack.bus.client(RECORDER)
        self.kept = 0
        self.seed = FIRST_SEED if wishes.seed is None else wishes.seed
        self.paused = False

    def run(self) -> int:
        """Returns the number of episodes kept."""
        self.stack.say(KEYS if self.orders.has_keyboard else "no terminal: orders come from the leader grippers alone")
        try:
            while self.kept < self.wishes.episodes:
                self._one()
        except KeyboardInterrupt:
            self.stack.say("")
        except (ProcessError, ShutDown):
            raise  # the arms stop for it, and a take ends with that
        except BaseException:
            self._discard()
            raise
        return self.kept

    def close(self) -> None:
        """Read and ask no more."""
        self.recorder.close()
        self.client.close()

    def _discard(self) -> None:
        """The command fails, and nobody has said what the take under way shows: it is thrown away. The recorder is
        given a moment only, because the arms still move."""
        try:
            reply = self.client.request(Request(verb="discard", sender="operator"), DISCARD_MS)
        except Exception as error:
            self.stack.say(f"the episode under way may be in the dataset ({error}): look at the last one")
        else:
            if reply.ok:
                self.stack.say("the episode under way is thrown away")

    def _one(self) -> None:
        """One take: arms to the start pose, go, wait for its end. Continuous recording leaves moving arms moving."""
        operate.refuse_stopped(self.stack)
        number = f"episode {self.kept + 1} of {self.wishes.episodes}"
        takes = self._state().takes
        if not (self.wishes.continuous and self._mode() in MOVING):
            self._start(number, takes)
        self._wait(lambda: self._state().takes > takes, NEXT_TIMEOUT_S, "the end of the take")
        state = self._state()
        if state.kept:
            self.kept += 1
            self.cues.say("", spoken="flagged" if state.flagged else "saved")
        elif state.trouble:
            raise AlohaError(state.trouble)
        elif not self.wishes.continuous:
            self.cues.say("", spoken="again")

    def _start(self, number: str, takes: int) -> None:
        """Arms to the start pose; then the person or the policy begins."""
        self._prepare()
        self._ask("next")
        operate.raise_arms(self.stack)
        if self.wishes.policy:
            self.stack.ask("policy")
        else:
            self.cues.say(f"{number}: open both leader grippers wide, then squeeze them when the scene is ready")

        def started() -> bool:
            return self._state().takes > takes or operate.mode_of(self.stack) in MOVING

        self._wait(started, NEXT_TIMEOUT_S, "the squeeze of both leader grippers")
        self.cues.say(f"{number} is being recorded", spoken="go")

    def _prepare(self) -> None:
        """Arms stand still; the simulated objects go where the next seed puts them."""
        if self._mode() not in (None, Mode.IDLE):
            self.stack.ask("stop", ROUTINE)
            self._wait(lambda: self._mode() in (Mode.HOLD, Mode.FAULT), 2.0, "the stop of the arms")
        self._wait(lambda: not self.paused, NEXT_TIMEOUT_S, "the end of the pause")
        if self.wishes.scripted or (self.stack.rig.sim is not None and self.wishes.policy):
            self.stack.ask("reset", str(self.seed))
            self.seed += 1

    def _wait(self, until: Callable[[], bool], timeout_s: float, what: str) -> None:
        def looked() -> bool:
            self._obey()
            return until()

        self.stack.wait(looked, timeout_s, what)

    def _obey(self) -> None:
        """Keys and pedal; and what a scripted demonstration has come to."""
        for order in self.orders.take():
            if order == "quit":
                raise KeyboardInterrupt
            if order == "stop":
                self.stack.ask("stop")
                continue
            if order == "pause":
                self.paused = not self.paused
                self.stack.say("pause before the next episode; p again goes on" if self.paused else "going on")
                continue
            self.stack.say(self._request(order))
        if self.wishes.scripted and self._state().phase == "taking":
            report: Health | None = self.stack.health["demonstrator"].latest()
            if report is not None and report.figures.get("done"):
                unsolved = "failure" if self.wishes.policy else "discard"  # what a policy did is kept in any case
                self._request("success" if report.figures.get("solved") else unsolved)

    def _request(self, verb: str) -> str:
        """The recorder's answer."""
        return self.client.request(Request(verb=verb, sender="operator")).text

    def _ask(self, verb: str) -> None:
        reply = self.client.request(Request(verb=verb, sender="operator"))
        if not reply.ok:
            raise AlohaError(reply.text)

    def _state(self) -> RecorderState:
        found: RecorderState | None = self.recorder.latest()
        return found if found is not None else RecorderState(stamp_ns=0, phase="idle")

    def _mode(self) -> Mode | None:
        heartbeat = self.stack.mode.latest()
        return None if heartbeat is None else Mode(heartbeat.mode)
