"""Starts, watches and ends the processes of one job: `aloha up` in development (systemd does it on the robot PC)."""

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import yaml

from aloha_runtime import messages
from aloha_runtime.act.card import directory_of
from aloha_runtime.act.observe import refuse_unfit
from aloha_runtime.bus import Bus
from aloha_runtime.commands.children import Children
from aloha_runtime.commands.interrupts import Interrupts
from aloha_runtime.commands.lockstep import LockStep
from aloha_runtime.commands.parking import park
from aloha_runtime.config import RigConfig
from aloha_runtime.errors import AlohaError, ProcessError, ShutDown
from aloha_runtime.messages import POWERED, Health, Reply, Request
from aloha_runtime.processes.table import Job, Process, processes
from aloha_runtime.realtime import NS_PER_S, Clock, WallClock
from aloha_runtime.run_directory import RIG_FILE, RunDirectory, default_run_dir

START_TIMEOUT_S = 180.0
"""A cold disk or a busy machine needs minutes to import torch. Processes that end are noticed at once."""
RESTART_DELAY_NS = NS_PER_S
POLL_S = 0.02
SUPERVISOR = "supervisor"


class Stack:
    """The processes of one job as a context: whatever happens inside, leaving it parks the arms and leaves nothing.

    Ctrl-C, SIGTERM and a closed terminal are noticed where the stack waits (`pause`, `watch`), never in the middle of
    something; there they are a KeyboardInterrupt.
    """

    def __init__(
        self,
        rig: RigConfig,
        job: Job,
        run_dir: Path | None = None,
        checkpoint: str = "",
        say: Callable[[str], None] = print,
        episode: tuple[str, int] = ("", 0),
        recording: tuple[str, ...] = (),
        patience_s: float = START_TIMEOUT_S,
    ) -> None:
        """`checkpoint` is what a deploy job runs, `episode` (dataset, index) what a replay plays, `recording` the
        arguments of the recorder. `patience_s`: so long a process may take to start.

        Raises CheckpointError when the job needs a policy and `checkpoint` is none for this rig.
        """
        self.rig = rig
        self.table = processes(rig, job, checkpoint, episode, recording)
        if any(process.name == "policy" for process in self.table):
            refuse_unfit(directory_of(checkpoint), rig)
        self.checkpoint = checkpoint
        self._say, self._patience_s = say, patience_s
        self.run_dir = run_dir or default_run_dir()
        self.clock: Clock = WallClock()
        self._time: LockStep | None = None
        self._rig_file = self.run_dir / RIG_FILE
        self._children = Children(self._rig_file, self.run_dir)
        self._interrupts = Interrupts()
        self._died_ns: dict[str, int] = {}
        self.armed = False
        """The arms have been armed since this stack began, so leaving it parks them."""
        self.zeros_confirmed = False
        """The operator has looked at the start pose, where the currents of the arms did not fit it."""

    def __enter__(self) -> "Stack":
        self._interrupts.begin()
        try:
            self.directory = RunDirectory(self.run_dir)
        except BaseException:
            self._interrupts.end()
            raise
        try:
            self._write_rig()
            if self.rig.sim is not None and self.rig.sim.clock == "virtual":
                self._start_in_lock_step()
            else:
                self._listen()
                for stage in sorted({process.stage for process in self.table}):
                    self._start([process for process in self.table if process.stage == stage])
            self._wait_heard()
        except BaseException:
            self._end()
            raise
        return self

    def _write_rig(self) -> None:
        try:
            self._rig_file.write_text(yaml.safe_dump(self.rig.model_dump(mode="json"), sort_keys=False))
        except OSError as error:
            raise AlohaError(f"{self._rig_file} cannot be written ({error.strerror}); free some of that disk") from None

    def say(self, text: str) -> None:
        """Tell the operator. Whatever fails there (a closed terminal, no memory) must not keep anything from
        happening."""
        with contextlib.suppress(Exception, SystemExit):  # Rich turns a broken pipe into SystemExit
            self._say(text)

    def _listen(self) -> None:
        """The stack's own ears and its connection to the supervisor, opened before anything moves: nothing that stops
        or parks the arms needs a further descriptor."""
        self.bus = Bus(self.run_dir, self.clock)
        self._supervisor = self.bus.client()
        running = {process.name for process in self.table}
        topics = [topic for topic in messages.ARMS if topic.publisher in running]
        self.arms = {topic.publisher: self.bus.subscribe(topic) for topic in topics}
        self.health = {p.name: self.bus.subscribe(messages.health_topic(p.name)) for p in self.table}
        self.mode = self.bus.subscribe(messages.MODE)

    def _start(self, group: list[Process]) -> None:
        for process in group:
            self._interrupts.check()
            self._children.spawn(process)
        self._wait_ready({process.name for process in group})

    def _start_in_lock_step(self) -> None:
        """All processes at once: time stands still until everyone has joined, then each sets itself up in its turn."""
        self._time = LockStep(self.run_dir, [process.name for process in self.table])
        for process in self.table:
            self._interrupts.check()
            self._children.spawn(process)
        self._wait_joined(self._time)
        self.clock = self._time.join()
        self._listen()
        self._wait_ready({process.name for process in self.table})

    def _wait_joined(self, lock_step: LockStep) -> None:
        """Until every process that virtual time waits for takes part in it."""
        deadline = time.monotonic() + self._patience_s
        while missing := lock_step.missing():
            self._refuse_dead(missing, deadline)
            self._interrupts.check()
            time.sleep(POLL_S)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            gone = SUPERVISOR in self._children and self._children.ended(SUPERVISOR) == 0
            # One that was shut down has parked, or said why not.
            trouble = "" if gone else park(self, alarmed=isinstance(error, Exception))
        finally:
            self._end()
        if trouble and error is None:
            raise AlohaError(trouble)
        if trouble:
            self.say(trouble)

    def pid(self, name: str) -> int:
        """Process id of a running process of the table."""
        return self._children.pid(name)

    def ask(self, verb: str, argument: str = "") -> Reply:
        """Send a request to the supervisor; raises AlohaError with its reason when it is refused."""
        self.armed |= verb == "arm"
        reply = self._supervisor.request(Request(verb=verb, argument=argument, sender="operator"))
        if not reply.ok:
            raise AlohaError(reply.text)
        return reply

    def wait(self, until: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Watch the processes until a condition holds; raises AlohaError saying `what` did not happen in time."""
        deadline_ns = self.clock.now_ns() + int(timeout_s * NS_PER_S)
        while not until():
            if self.clock.now_ns() > deadline_ns:
                raise AlohaError(f"{what} did not happen within {timeout_s:.0f} s")
            self.watch()
            self.pause()

    def pause(self, seconds: float = POLL_S) -> None:
        """Let time pass, on the rig's own clock. KeyboardInterrupt when the operator wants to end."""
        self._interrupts.check()
        self.clock.sleep_until(self.clock.now_ns() + int(seconds * NS_PER_S))

    def watch(self) -> None:
        """Restart what died. Raises ProcessError when a process gave up with an error of its own, ShutDown when the
        supervisor has shut the system down, KeyboardInterrupt when the operator wants to end."""
        self._interrupts.check()
        now_ns = self.clock.now_ns()
        for subscriber in (*self.health.values(), *self.arms.values()):
            subscriber.latest()  # one that is never read does not find a restarted publisher
        heartbeat = self.mode.latest()
        self.armed |= heartbeat is not None and heartbeat.mode in POWERED
        for process in self.table:
            code = self._children.ended(process.name)
            if code is None:
                continue
            if code > 0:
                raise self._children.failure(process.name, "gave up")
            if code == 0 and process.name == SUPERVISOR:
                raise ShutDown("shut down on request")
            if process.name not in self._died_ns:
                self._died_ns[process.name] = now_ns
                cause = signal.Signals(-code).name if code < 0 else "it ended by itself"
                self.say(f"{process.name} died ({cause}); starting it again{self._what_then(process.name)}")
            elif now_ns - self._died_ns[process.name] > RESTART_DELAY_NS:
                del self._died_ns[process.name]
                self._restart(process)

    def _what_then(self, name: str) -> str:
        """What the operator must know of the arms when a process is started again; empty where it does not command
        them."""
        commands = name == SUPERVISOR or name in self.arms
        return "; the arms stay where they are: `aloha arm` goes on, `aloha park` parks them" if commands else ""

    def exchange(self, process: Process) -> None:
        """Run a process in the place of the one of its name, with other arguments; returns when it has reported."""
        self._children.stop(process.name)
        self.table = [process if other.name == process.name else other for other in self.table]
        began_ns = self.clock.now_ns()
        self._restart(process)

        def reported() -> bool:
            health: Health | None = self.health[process.name].latest()
            return health is not None and health.stamp_ns > began_ns

        self.wait(reported, self._patience_s, f"the first report of {process.name}")

    def _restart(self, process: Process) -> None:
        """Start a process again. Virtual time stands still meanwhile, so that it is back at the same instant always."""
        if self._time is None:
            self._children.spawn(process)
            return
        self._time.expect(process.name)
        try:
            self._children.spawn(process)
            self._wait_joined(self._time)
        finally:
            self._time.forget(process.name)

    def _wait_ready(self, waiting: set[str]) -> None:
        """Every process is ready when its first health report arrives."""
        deadline = time.monotonic() + self._patience_s
        while waiting := {name for name in waiting if self.health[name].latest() is None}:
            self._refuse_dead(waiting, deadline)
            self.pause()

    def _wait_heard(self) -> None:
        """The arms obey no order from before they have heard the supervisor, so nobody gives one earlier."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while waiting := {
            name for name, arms in self.arms.items() if (state := arms.latest()) is None or not state.order_ns
        }:
            self._refuse_dead(waiting, deadline)
            self.pause()

    def _refuse_dead(self, waiting: set[str], deadline_s: float) -> None:
        """AlohaError when processes that are waited for ended, or the (wall) deadline is over."""
        names = [process.name for process in self.table if process.name in waiting]
        failures = [
            self._children.failure(name, "could not start") for name in names if self._children.ended(name) is not None
        ]
        if failures:
            raise ProcessError("\n".join(str(failure) for failure in failures), failures[0].exit_code)
        if time.monotonic() > deadline_s:
            raise AlohaError(f"{', '.join(names)} did not report within {self._patience_s:.0f} s of starting")

    def _end(self) -> None:
        """End every process and clean the run directory. Each step is taken, whatever becomes of the others."""
        with contextlib.ExitStack() as steps:  # the last one that is named here comes first
            steps.callback(self._interrupts.end)
            steps.callback(self.directory.cleanup)
            steps.callback(self._rig_file.unlink, missing_ok=True)
            if hasattr(self, "bus"):
                steps.callback(self.bus.close)
            if self._time is not None:
                steps.callback(self._time.close)
            steps.callback(self._children.end)
            if self._time is not None:
                steps.callback(self._time.leave)  # time goes on without us, so that every process gets its turn to end
