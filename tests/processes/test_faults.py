"""A few trials of `aloha bench faults` on emulated arms in real time. Only events and counts are judged here, no times:
those depend on what else the machine does, and the command itself tells them."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from aloha_runtime import busy_threads
from aloha_runtime.cli import app
from aloha_runtime.commands import bench_faults
from aloha_runtime.commands.faults.policies import POLICY
from aloha_runtime.commands.faults.rig import FaultRig
from aloha_runtime.commands.faults.scenario import Result, Scenario, Trial
from aloha_runtime.commands.faults.servos import SERVOS
from aloha_runtime.errors import ConfigError

SHORT = (
    "policy killed",
    "inference hangs",
    "NaN in actions",
    "servo in overload",
    "one servo silent",
    "servo nearly too hot",
    "servo loaded for a second",
)
ATTEMPTS = 8
"""What was broken while the machine itself stood still is tried again."""


@pytest.fixture(scope="module")
def rig() -> Iterator[FaultRig]:
    with FaultRig() as running:
        yield running


@pytest.mark.parametrize("name", SHORT)
def test_what_is_promised_holds_on_moving_arms(rig: FaultRig, name: str) -> None:
    scenario = next(item for item in (*POLICY.scenarios, *SERVOS.scenarios) if item.name == name)
    chance = Random(name)
    for _ in range(ATTEMPTS):
        trial = scenario.attempt(rig, chance)
        if not (trial.broken and trial.apart):
            break
    assert trial.broken == ""
    if name == "policy killed":
        assert trial.figure is not None
        assert trial.figure <= 70  # counted in cycles


def test_a_figure_above_its_bound_and_a_broken_promise_are_not_held_and_trials_apart_do_not_count() -> None:
    scenario = Scenario("fault", "promise", "ms", 10.0, lambda _rig, _chance: Trial())
    result = Result(scenario, [Trial(figure=9.0), Trial(figure=11.0), Trial(broken="it moved")])
    result.trials.append(Trial(broken="late", apart="the arms process was not scheduled for 30 ms"))
    assert (len(result.counted), result.held, result.met) == (3, 1, False)
    assert list(result.reasons()) == [
        "11 ms, promised are 10",
        "it moved",
        "the arms process was not scheduled for 30 ms",
    ]
    assert not Result(scenario).met  # what was not tried has not held


def test_the_command_writes_json_and_ends_with_1_when_a_promise_broke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_rig: object, _chance: Random) -> Trial:
        return Trial("it moved", 3.0)

    family = bench_faults.Family(
        "made up", _NoRig, (Scenario("a fault", "nothing moves", "ms", None, broken, count=2),)
    )
    monkeypatch.setattr(bench_faults, "FAMILIES", (family,))
    done = CliRunner().invoke(app, ["bench", "faults", "--json", str(tmp_path / "faults.json")])
    assert done.exit_code == 1
    (row,) = json.loads((tmp_path / "faults.json").read_text())["rows"]
    assert (row["name"], row["tried"], row["held"], row["met"]) == ("a fault", 2, 0, False)
    with pytest.raises(ConfigError, match="no scenario matches --only nothing; there are made up: a fault"):
        bench_faults.run(("nothing",))


class _NoRig:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def test_a_busy_thread_is_named_and_a_worker_or_a_waiting_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns, ended = 0, threading.Event()
    threads = {name: threading.Thread(target=ended.wait, name=name) for name in ("hog", "waits")}
    for thread in threads.values():
        thread.start()
    shares = {threads["hog"].native_id: 0.9, threads["waits"].native_id: 0.02}
    monkeypatch.setattr(busy_threads.time, "monotonic_ns", lambda: now_ns)
    monkeypatch.setattr(busy_threads, "_used_ns", lambda native_id: int(shares.get(native_id, 0.0) * now_ns))
    strict, lenient = busy_threads.BusyThreads(), busy_threads.BusyThreads(workers=("ho",))
    try:
        found, forgiven = [], []
        for _ in range(5):
            now_ns += busy_threads.SPAN_NS
            found.append(strict.look())
            forgiven.append(lenient.look())
    finally:
        monkeypatch.undo()
        ended.set()
        for thread in threads.values():
            thread.join()
    assert found[0] == ""  # the first look begins the count
    assert all("thread 'hog' of this process uses 90% of a core" in said for said in found[1:])
    assert forgiven == [""] * 5


def test_the_cpu_time_of_a_thread_grows_with_its_work_and_an_ended_one_has_none() -> None:
    native_id = threading.get_native_id()
    before_ns = busy_threads._used_ns(native_id)
    while time.thread_time_ns() < before_ns + 20_000_000:
        pass
    assert busy_threads._used_ns(native_id) >= before_ns + 20_000_000
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    while busy_threads._used_ns(thread.native_id or 0):  # joined is a little before the kernel has let it go
        time.sleep(0.001)
