"""What every process shares: arguments, configuration, clock, bus, signals, health reports, and errors in one line.

A process is `main(service)` = set up, build, loop. It leaves its loop when `service.stopping` turns true.
"""

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from aloha_runtime import config, messages
from aloha_runtime.bus import Bus
from aloha_runtime.busy_threads import BusyThreads
from aloha_runtime.errors import AlohaError
from aloha_runtime.realtime import Clock, RealtimeReport, WallClock, prepare
from aloha_runtime.virtual_time import VirtualClock

HEALTH_PERIOD_NS = 200 * messages.MS
"""Five reports a second: a dead process is noticed within a second, at no cost worth measuring."""
JOURNAL_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""Priorities of syslog, which the journal reads from `<N>` before a line (man 3 sd-daemon)."""


class Systemd:
    """What systemd hears of a process that it started: ready, alive (its watchdog), its trouble. Mute elsewhere.

    Ten lines over one datagram socket (man 3 sd_notify), so that no package stands between a loop and its watchdog.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")  # a child of ours must not speak for us
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        if self._socket is not None:
            self._socket.setblocking(False)

    def completed(self, message: str) -> None:
        """A turn of the loop is over: the first one is READY, each one feeds the watchdog."""
        if self._socket is not None:
            text = " ".join(message.split()) or "runs"
            with contextlib.suppress(OSError):  # systemd is being restarted, or busy: the next turn says it again
                self._socket.sendto(f"READY=1\nWATCHDOG=1\nSTATUS={text}".encode(), self._address)


class JournalFormatter(logging.Formatter):
    """Lines for the journal, which has time and name of the process by itself: the priority and the message."""

    def format(self, record: logging.LogRecord) -> str:
        mark = f"<{JOURNAL_PRIORITY.get(record.levelno, 6)}>"
        return mark + super().format(record).replace("\n", f"\n{mark}")


class Service:
    """One running process: its name, rig, clock and bus."""

    def __init__(self, name: str, rig: config.RigConfig, run_dir: Path, clock: Clock, arguments: argparse.Namespace):
        self.name = name
        self.rig = rig
        self.run_dir = run_dir
        self.clock = clock
        self.bus = Bus(run_dir, clock)
        self.arguments = arguments
        self.log = logging.getLogger(name)
        self.log.setLevel(logging.INFO)
        self.stopping = False
        self._working = False
        self._health = self.bus.publisher(messages.health_topic(name))
        self._next_health_ns = 0
        self._systemd = Systemd()
        self._busy: BusyThreads | None = None
        self._busy_told = False

    @property
    def instance(self) -> str:
        """What stands behind the @ in the name: `followers` of `arms@followers`."""
        return self.name.partition("@")[2]

    def stop(self) -> None:
        """Leave the loop after this turn."""
        self.stopping = True

    def obey(self, _signal: int, _frame: FrameType | None) -> None:
        """SIGTERM or SIGINT: leave the loop; before it has begun, leave at once, since setting up may take long."""
        self.stop()
        if not self._working:
            sys.exit(0)

    def prepare_realtime(self, cores: list[int], below: int = 0, workers: tuple[str, ...] = ()) -> RealtimeReport:
        """Real-time priority, cores, locked memory and a frozen garbage collector; call after all imports.

        `below`: so much less than the rig's priority, for what must give way to the arms. `workers`: threads that may
        be busy (`BusyThreads`); any other that is shows in the health reports.
        """
        self._busy = None if self.clock.virtual else BusyThreads(workers)
        # Virtual time waits for everyone; a priority would only take the machine from others.
        wanted = self.rig.realtime.priority
        priority = None if self.clock.virtual or wanted is None else max(1, wanted - below)
        report = prepare(priority, cores, lock_memory=self.rig.sim is None)
        for problem in report.problems:
            self.log.info("%s", problem)
        return report

    def report(
        self,
        figures: Callable[[], dict[str, float]] = dict,
        ok: bool = True,
        message: str = "",
        subject: str = "",
    ) -> None:
        """Publish a health report when one is due; call it once a cycle. `figures` is only asked when one is.

        The first call tells everyone that this process is set up. Only here systemd's watchdog is fed: a loop that
        stands still is restarted, whatever else its process still does.
        """
        self._working = True
        now = self.clock.now_ns()
        if now >= self._next_health_ns:
            self._next_health_ns = now + HEALTH_PERIOD_NS
            if busy := self._busy.look() if self._busy else "":
                ok, message = False, "; ".join(filter(None, (busy, message)))
                if not self._busy_told:
                    self.log.warning("%s", busy)
            self._busy_told = bool(busy)
            self._health.send(
                messages.Health(
                    stamp_ns=now,
                    process=self.name,
                    pid=os.getpid(),
                    ok=ok,
                    message=message,
                    subject=subject,
                    figures=figures(),
                )
            )
            self._systemd.completed(message)


SIGNALS = {signal.SIGTERM, signal.SIGINT}


def run(main: Callable[[Service], None], extend: Callable[[argparse.ArgumentParser], None] | None = None) -> None:
    """Run one process until SIGTERM or SIGINT; an AlohaError becomes one line on stderr and its exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", help="process name from the table, e.g. arms@followers")
    parser.add_argument("--rig", required=True, help="rig configuration: a shipped name or a .yaml file")
    parser.add_argument("--run-dir", required=True, type=Path)
    parser.add_argument("--stage", type=int, default=2, help="order of turns in virtual time (the table's)")
    parser.add_argument("--complain-to", type=int, help="file descriptor for the error that ends it; default: stderr")
    if extend:
        extend(parser)
    arguments = parser.parse_args()
    _log_to_stderr()
    service = None
    try:
        rig = config.load(arguments.rig)
        clock: Clock = WallClock()
        if rig.sim and rig.sim.clock == "virtual":
            clock = VirtualClock(arguments.run_dir, arguments.name, arguments.stage)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a signal in between would leave the first socket behind
        service = Service(arguments.name, rig, arguments.run_dir, clock, arguments)
        for number in SIGNALS:
            signal.signal(number, service.obey)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        main(service)
    except AlohaError as error:
        _complain(arguments, error)
        sys.exit(error.exit_code)
    finally:
        if service:
            service.bus.close()


def _log_to_stderr() -> None:
    """Own lines from INFO on, those of libraries from WARNING on."""
    logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s")
    here = os.fstat(sys.stderr.fileno())
    if os.environ.get("JOURNAL_STREAM") == f"{here.st_dev}:{here.st_ino}":  # not of a terminal's parent (systemd.exec)
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JournalFormatter())


def _complain(arguments: argparse.Namespace, error: AlohaError) -> None:
    """To the stack, which tells the operator; or to the operator (or the journal) directly."""
    if arguments.complain_to is None:
        logging.getLogger(arguments.name).error("%s", error)
        return
    with contextlib.suppress(BrokenPipeError):  # the stack was killed: nobody listens any more
        os.write(arguments.complain_to, str(error).encode())
