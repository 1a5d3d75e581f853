"""A rig in one process and in made-up time: the real mode machine and the real recorder's `Take` behind a made-up bus,
so that a whole command runs in milliseconds, and can be made to fail at each of its steps."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aloha_runtime.bus import RECORDER, Closeable
from aloha_runtime.commands import stack as stack_module
from aloha_runtime.commands.cues import Cues
from aloha_runtime.commands.orders import Orders
from aloha_runtime.control.events import ArmsHeard, Heard
from aloha_runtime.control.modes import ARMS, ModeMachine
from aloha_runtime.control.take import Ending, Outcome, Phase, Take, TakeLimits
from aloha_runtime.messages import ArmsState, Health, Mode, RecorderState, Reply, Request, Topic
from aloha_runtime.processes.table import Process

STEP_NS = 20_000_000
SETTLES_NS = 100_000_000
SQUEEZES_NS = 200_000_000
TAKE_FRAMES = 12
Step = tuple[str, ...]
"""Which operation, from which lines of the commands, in which mode and phase of the recorder."""


@dataclass
class Tripwire:
    """Notes every step of a command in the order in which it is taken first; raises `error` at one of them."""

    target: Step | None = None
    error: BaseException | None = None
    steps: dict[Step, None] = field(default_factory=dict)

    def __call__(self, operation: str, rig: "FakeRig") -> None:
        step = (operation, *_lines(), rig.machine.mode, rig.take.phase)
        self.steps[step] = None
        if step == self.target and self.error is not None:
            error, self.error = self.error, None
            raise error


def _lines() -> Iterator[str]:
    """The innermost three lines of the commands that led here."""
    frame, found = sys._getframe(2), 0
    while frame is not None and found < 3:
        _, inside, name = frame.f_code.co_filename.partition("/aloha_runtime/commands/")
        if inside:
            yield f"{name}:{frame.f_lineno}"
            found += 1
        frame = frame.f_back  # type: ignore[assignment]


class FakeRig:
    """Time passes while its clock sleeps; `bus` and `children` are what a stack would start."""

    virtual = False

    def __init__(
        self, wire: Tripwire, led: bool, orders: tuple[str, ...] = (), policy_for_ns: int | None = None
    ) -> None:
        """`led`: somebody squeezes the grippers when the arms are armed. `orders`: of the operator, one at each look
        once a take (or, without a recorder, a motion) is under way; "next" and "pause" come at once."""
        self.wire, self.led, self.orders, self.quits = wire, led, list(orders), "quit" in orders
        self.now = 10**12
        self.machine = ModeMachine(self.now, ARMS, policy_for_ns)
        self.entered_ns, self.entered = self.now, Mode.IDLE
        self.take = Take(TakeLimits())
        self.takes, self.last = 0, Ending(False, "")
        self.episodes: list[Ending] = []
        self.names: list[str] = []
        self.bus = FakeBus(self)
        self.left_open: list[str] = []

    # The clock of the stack.
    def now_ns(self) -> int:
        return self.now

    def sleep_until(self, deadline_ns: int, wake: tuple[str, ...] = ()) -> None:
        self.wire("sleep", self)
        self.pass_until(deadline_ns)

    def pass_until(self, deadline_ns: int) -> None:
        while self.now < deadline_ns:
            self.now += STEP_NS
            self._live()

    def _live(self) -> None:
        """One step of everybody."""
        events = [*(Heard(name, self.now) for name in self.names), *(ArmsHeard(name, self.arms()) for name in ARMS)]
        self.machine.hear(events, self.now)
        self.machine.heartbeat(self.now, 0)
        if self.machine.mode is not self.entered:
            self.entered, self.entered_ns = self.machine.mode, self.now
        if self.led and self.entered is Mode.ARMED and self.now - self.entered_ns > SQUEEZES_NS:
            self.ask(Request(verb="teleop", sender="squeeze"))
        ending = self.take.tick(self.machine.mode, self.machine.cause, "")
        if ending is not None:
            self.takes, self.last = self.takes + 1, ending
            self.episodes += [ending] if ending.keep else []

    def arms(self) -> ArmsState:
        settled = self.machine.mode is self.entered and self.now - self.entered_ns > SETTLES_NS
        zeros = [0.0] * 14
        return ArmsState(
            stamp_ns=self.now,
            position=zeros,
            velocity=zeros,
            effort_ma=zeros,
            mode=self.machine.mode,
            order_ns=self.machine.order_ns,
            settled=settled,
        )

    def ask(self, request: Request) -> Reply:
        """A request to the supervisor."""
        if request.verb == "reset":
            return Reply(ok=True, text="", mode=self.machine.mode)
        request.stamp_ns = request.stamp_ns or self.now
        decision = self.machine.ask(request, self.now, operator=request.sender == "operator")
        return Reply(ok=decision.ok, text=decision.text, mode=decision.mode)

    def order(self, request: Request) -> Reply:
        """A request to the recorder."""
        if request.verb == "next":
            self.take.next()
            return Reply(ok=True, text="")
        outcome = Outcome(request.verb) if request.verb in list(Outcome) else Outcome.UNKNOWN
        refusal = self.take.end(Ending(request.verb != "discard", request.verb, outcome))
        return Reply(ok=not refusal, text=refusal or request.verb)

    def pressed(self) -> list[str]:
        """What the operator does at this look."""
        if not self.orders:
            return []
        if "recorder" in self.names:
            ready = self.take.phase is Phase.TAKING and self.take.frames >= TAKE_FRAMES
        else:
            ready = self.machine.mode in (Mode.TELEOP, Mode.POLICY, Mode.HOLD)
        wants = self.orders[0] in ("next", "pause") or (ready and self.now - self.entered_ns > SQUEEZES_NS)
        return [self.orders.pop(0)] if wants else []

    def message(self, topic: Topic) -> Any:
        """The newest message of a topic."""
        if topic.name == "mode":
            return self.machine.heartbeat(self.now, 0)
        if topic.name in ("followers", "leaders"):
            return self.arms()
        if topic.name == "recorder":
            return RecorderState(
                stamp_ns=self.now, phase=self.take.phase, frames=self.take.frames, takes=self.takes, kept=self.last.keep
            )
        if topic.name.startswith("health."):
            done = float(self.take.frames >= TAKE_FRAMES)
            if "replay" in topic.name:
                done = float(self.machine.mode is Mode.REPLAY and self.now - self.entered_ns > SQUEEZES_NS)
            figures = {"done": done, "solved": done, "play_ns": float(self.now), "latency_p50_ms": 1.0}
            figures |= {"latency_p99_ms": 1.0, "rate_hz": 200.0}
            return Health(stamp_ns=self.now, process=topic.publisher, pid=os.getpid(), figures=figures)
        return None


class FakeSubscriber(Closeable):
    def __init__(self, rig: FakeRig, topic: Topic) -> None:
        self.rig, self.topic = rig, topic
        self.dropped = self.restarts = self.received = 0

    def latest(self) -> Any:
        self.rig.wire(f"latest {self.topic.name.partition('.')[0]}", self.rig)
        return self.rig.message(self.topic)

    def fresh(self, now_ns: int) -> Any:
        return self.latest()

    def drain(self) -> list[Any]:
        self.rig.wire(f"drain {self.topic.name.partition('.')[0]}", self.rig)
        return []

    wait = age_ns = drain

    def close(self) -> None:
        self.rig.bus.open.pop(id(self), None)


class FakeClient(Closeable):
    def __init__(self, rig: FakeRig, server: str) -> None:
        self.rig, self.server, self.topic = rig, server, SimpleNamespace(name=f"requests to the {server}")

    def request(self, request: Request, timeout_ms: int = 2000) -> Reply:
        self.rig.wire(f"before {request.verb}", self.rig)
        reply = self.rig.order(request) if self.server == RECORDER else self.rig.ask(request)
        self.rig.wire(f"after {request.verb}", self.rig)
        return reply

    def close(self) -> None:
        self.rig.bus.open.pop(id(self), None)


class FakeBus(Closeable):
    """Notes what is open."""

    def __init__(self, rig: FakeRig) -> None:
        self.rig, self.run_dir = rig, Path("/nowhere")
        self.open: dict[int, Any] = {}
        self.most = 0

    def subscribe(self, topic: Topic, depth: int = 1, **limits: int) -> FakeSubscriber:
        self.rig.wire(f"subscribe {topic.name.partition('.')[0]}", self.rig)
        return self._note(FakeSubscriber(self.rig, topic))

    def client(self, server: str = "supervisor") -> FakeClient:
        self.rig.wire("client", self.rig)
        return self._note(FakeClient(self.rig, server))

    def _note(self, opened: Any) -> Any:
        self.open[id(opened)] = opened
        self.most = max(self.most, len(self.open))
        return opened

    def close(self) -> None:
        self.rig.left_open = sorted(opened.topic.name for opened in self.open.values())
        self.open.clear()


class FakeChildren:
    """Processes that run as soon as they are started."""

    def __init__(self, rig: FakeRig) -> None:
        self.rig = rig

    def spawn(self, process: Process) -> None:
        self.rig.wire("spawn", self.rig)
        self.rig.names.append(process.name)
        self.rig.pass_until(self.rig.now + STEP_NS)

    def stop(self, name: str) -> None:
        self.rig.wire("stop a process", self.rig)

    def __contains__(self, name: str) -> bool:
        return name in self.rig.names

    def ended(self, name: str) -> int | None:
        return None

    def pid(self, name: str) -> int:
        return os.getpid()

    def end(self) -> None:
        self.rig.names.clear()


@contextmanager
def in_place(rig: FakeRig, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stacks run on this rig instead of on processes."""
    with patch.context() as patched:
        patched.setattr(stack_module, "Bus", lambda run_dir, clock: rig.bus)
        patched.setattr(stack_module, "Children", lambda rig_file, run_dir: FakeChildren(rig))
        patched.setattr(stack_module, "WallClock", lambda: rig)
        patched.setattr(stack_module, "refuse_unfit", lambda directory, rig: None)
        patched.setattr(stack_module, "directory_of", Path)
        patched.setattr(stack_module.Stack, "_write_rig", lambda stack: None)
        patched.setattr(Orders, "take", lambda orders: rig.wire("take", rig) or rig.pressed())
        patched.setattr(Cues, "say", lambda cues, text, spoken="": rig.wire("cue", rig))
        yield
