"""Frames between processes: shared-memory rings against ZeroMQ ipc with the pixels inline, in one run.

Four cameras of 480x640x3 at 60 fps from one writer process to one and to two reader processes; a reader touches every
page of every frame. Latency runs from before the writer hands a frame over until a reader has touched it; CPU is that
of all threads of the processes.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aloha_runtime.commands.bench import Row
from aloha_runtime.commands.bench_transport_worker import CAMERAS
from aloha_runtime.messages import MS
from aloha_runtime.realtime import NS_PER_S, WallClock
from aloha_runtime.run_directory import RunDirectory
from aloha_runtime.time_server import TimeServer

WAYS = ("ring", "inline")
ROUNDS = 2
"""Both ways take turns, so that whatever else the machine does falls on both."""
WARM_UP_NS = NS_PER_S
"""Between the processes being ready and the first frame that counts: subscriptions arrive, memory is touched."""
GRANTS_GOAL = 5000
"""A rig of ten processes at 200 Hz then runs at 2.5 times real time before it does any work."""


@dataclass
class Sums:
    """What was measured in all rounds of one way with one number of readers."""

    sent: int = 0
    received: int = 0
    writer_cpu_ns: int = 0
    readers_cpu_ns: int = 0
    latencies_us: list[float] = field(default_factory=list)

    def cpu_ms_per_frame(self, readers: int) -> float:
        """Of a frame that reaches every reader: a lost one costs its reader nothing and must not make it look cheap."""
        return (self.writer_cpu_ns / self.sent + readers * self.readers_cpu_ns / self.received) / MS

    def lost_percent(self, readers: int) -> float:
        return 100 * (1 - self.received / (self.sent * readers))

    def latency_us(self, percent: int) -> float:
        return statistics.quantiles(self.latencies_us, n=100)[percent - 1]


def run(seconds: float) -> list[Row]:
    """Measure for `seconds` per way and number of readers; four times as long in all."""
    sums = {(way, readers): Sums() for way in WAYS for readers in (1, 2)}
    for _ in range(ROUNDS):
        for (way, readers), case in sums.items():
            _measure(way, readers, seconds / ROUNDS, case)
    rows = []
    for readers, text in ((1, "one reader"), (2, "two readers")):
        ring, inline = sums["ring", readers], sums["inline", readers]
        for percent in (50, 99):
            name = f"frame latency p{percent}, {text}"
            share = 1 / 3 if percent == 50 else None  # the tail is the machine's: it is shown, not judged
            rows.append(_row(name, "us", ring.latency_us(percent), inline.latency_us(percent), share))
        share = 2 / 3 if readers == 1 else None
        cpu = ring.cpu_ms_per_frame(readers), inline.cpu_ms_per_frame(readers)
        rows.append(_row(f"CPU a frame, writer and {text}", "ms", *cpu, share))
        rows.append(_row(f"frames lost, {text}", "%", ring.lost_percent(readers), inline.lost_percent(readers), None))
    ring_adds, inline_adds = (sums[w, 2].cpu_ms_per_frame(2) - sums[w, 1].cpu_ms_per_frame(1) for w in WAYS)
    rows.append(_row("CPU a frame that the second reader adds", "ms", ring_adds, inline_adds, 1 / 4))
    grants = _grants_per_s(seconds / ROUNDS)
    rows.append(
        Row(f"virtual time, {len(CAMERAS)} processes", grants, "grants/s", None, GRANTS_GOAL, grants >= GRANTS_GOAL)
    )
    return rows


def _row(name: str, unit: str, value: float, peer: float, share: float | None) -> Row:
    """A figure held against a share of the peer's."""
    goal = None if share is None else peer * share
    return Row(name, value, unit, peer, goal, None if goal is None else value <= goal)


def _measure(way: str, readers: int, seconds: float, sums: Sums) -> None:
    with _processes([(role, way) for role in ["writer", *["reader"] * readers]]) as (_, children):
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()  # it is ready
        start_ns = WallClock().now_ns() + WARM_UP_NS
        window = f"{start_ns} {start_ns + int(seconds * NS_PER_S)}\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write(window)
            child.stdin.flush()
        for child in children:
            result = json.loads(child.communicate()[0])
            if "sent" in result:
                sums.sent += result["sent"]
                sums.writer_cpu_ns += result["cpu_ns"]
            else:
                sums.received += len(result["latencies_us"])
                sums.readers_cpu_ns += result["cpu_ns"]
                sums.latencies_us += result["latencies_us"]


def _grants_per_s(seconds: float) -> float:
    """How often a second virtual time goes round among processes that do nothing else."""
    with _processes([("participant", name) for name in CAMERAS]) as (run_dir, _):
        server = TimeServer(run_dir, CAMERAS)
        server.run(lambda: server.grants > 0)
        start, before = time.monotonic(), server.grants
        server.run(lambda: time.monotonic() - start >= seconds)
        rate = (server.grants - before) / (time.monotonic() - start)
        server.close()
    return rate


@contextlib.contextmanager
def _processes(roles: list[tuple[str, str]]) -> Iterator[tuple[Path, list["subprocess.Popen[str]"]]]:
    """Workers in a run directory of their own; whatever happens, neither is left."""
    module = "aloha_runtime.commands.bench_transport_worker"
    with tempfile.TemporaryDirectory(prefix="aloha-bench-") as parent, RunDirectory(Path(parent) / "run") as directory:
        children = []
        try:
            for role in roles:
                command = [sys.executable, "-m", module, *role, str(directory.path)]
                children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            yield directory.path, children
        finally:
            for child in children:
                child.kill()
                child.communicate()
