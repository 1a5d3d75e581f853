"""policy, tick by tick, with networks that are fast, slow, stuck or absent: no tick waits past its deadline, and what
goes out is the ensemble of the chunks that are there."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from process_fakes import FakeClock, fake_service

from aloha_runtime import messages
from aloha_runtime.act.ensemble import TemporalEnsemble
from aloha_runtime.act.worker import Chunk, InferenceWorker
from aloha_runtime.config import DeployConfig
from aloha_runtime.control.sync import Missing, Observation
from aloha_runtime.errors import CheckpointError
from aloha_runtime.messages import MS, ArmsState, Mode, ModeHeartbeat
from aloha_runtime.processes import policy
from aloha_runtime.realtime import NS_PER_S, Beat
from aloha_runtime.robot import TICK_NS

FIRST = 50_000
LENGTH = 10
DEADLINE_NS = 14 * MS


def actions_of(tick: int) -> np.ndarray:
    """A chunk (LENGTH, 14) that tells where it comes from: action k of tick t is t + k / 100 in every joint."""
    return np.repeat((tick - FIRST + np.arange(LENGTH) / 100)[:, None], 14, axis=1)


class FakeWorker:
    """An inference of `ticks` ticks (None: it never ends) on a clock of the test's."""

    def __init__(self, clock: FakeClock, duration_ns: int | None) -> None:
        self.clock = clock
        self.duration_ns = duration_ns
        self.usual_ns = duration_ns or 0
        self.running: tuple[int, int] | None = None
        """Tick of the observation, and when its inference began."""
        self.waited_until_ns = 0

    def offer(self, tick: int, stamp_ns: int, observation: Any) -> None:
        if self.running is None:
            self.running = (tick, self.clock.now)

    def take(self, tick: int, timeout_s: float | None) -> list[Chunk]:
        assert timeout_s is not None, "for ever is for virtual time"
        assert timeout_s >= 0
        until_ns = self.clock.now + int(timeout_s * NS_PER_S)
        if self.running is None or self.duration_ns is None or self.running[1] + self.duration_ns > until_ns:
            self.clock.sleep_until(until_ns)
            return []
        done, began_ns = self.running
        self.clock.sleep_until(began_ns + self.duration_ns)
        self.running = None
        return [Chunk(done, actions_of(done), done * TICK_NS, self.duration_ns)]

    def running_ns(self) -> int:
        return 0 if self.running is None else self.clock.now - self.running[1]

    def close(self) -> None: ...


class FakeInputs:
    """An observation of every tick, or the reason why there is none."""

    missing: Missing | None = None

    def at(self, tick: int) -> tuple[Observation, dict[str, Any]] | Missing:
        if self.missing is not None:
            return self.missing
        stamp_ns = tick * TICK_NS
        state = ArmsState(stamp_ns=stamp_ns, position=[0.0] * 14, velocity=[0.0] * 14, effort_ma=[0.0] * 14)
        return Observation(stamp_ns, {}, {}, state.position, [], [], state, stamp_ns, 0, 0), {}


class Scene:
    """The policy process between a supervisor and a network of the test's."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        duration_ns: int | None,
        care: DeployConfig | None = None,
        says: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """`says`: what the checkpoint does; `settings`: of the rig file's `policy`, without a lead unless given."""
        self.service = fake_service("policy", checkpoint="my_policy")
        asked = self.service.rig.policy.model_copy(update={"lead_ms": 0.0, **settings})
        self.service.rig = self.service.rig.model_copy(update={"deploy": care or DeployConfig(), "policy": asked})
        self.clock = self.service.clock
        self.clock.now = FIRST * TICK_NS
        self.inputs, self.worker = FakeInputs(), FakeWorker(self.clock, duration_ns)
        monkeypatch.setattr(policy, "PolicyInputs", lambda *_: self.inputs)
        monkeypatch.setattr(policy, "InferenceWorker", lambda _: self.worker)
        own = {"n_action_steps": 1, "temporal_ensemble_coeff": 0.01, "chunk_size": LENGTH}
        config = type("Config", (), own | (says or {}))()
        self.loop = policy.PolicyLoop(self.service, config, lambda _: actions_of(0))
        self.late_ns: list[int] = []

    def ticks(self, count: int, mode: Mode = Mode.POLICY, lateness_ns: int = 0) -> None:
        """The next ticks, each noting how long after its start it ended."""
        for _ in range(count):
            index = -(-self.clock.now // TICK_NS)
            self.clock.sleep_until(index * TICK_NS + lateness_ns)
            heartbeat = ModeHeartbeat(stamp_ns=index * TICK_NS, mode=mode)
            self.service.bus.put(messages.MODE, heartbeat)
            self.loop.tick(Beat(index, index * TICK_NS, lateness_ns, 0))
            self.late_ns.append(self.clock.now - index * TICK_NS)
            self.clock.now += 1

    @property
    def sent(self) -> list[messages.Action]:
        return self.service.bus.publishers["action_policy"].sent

    @property
    def reports(self) -> list[messages.PolicyTick]:
        return self.service.bus.publishers["policy_tick"].sent


Start = Callable[[int | None], Scene]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    return lambda duration_ns: Scene(monkeypatch, duration_ns)


def test_a_fast_network_gives_every_tick_its_own_chunk(start: Start) -> None:
    scene = start(5 * MS)
    scene.ticks(30)
    reference = TemporalEnsemble("paper", 0.01)
    for action in scene.sent:
        reference.add(action.tick, actions_of(action.tick))
        assert action.position == pytest.approx(reference.action(action.tick))
    assert [action.tick for action in scene.sent] == list(range(FIRST, FIRST + 30))
    assert all(report.fresh and report.on_time for report in scene.reports)
    assert max(scene.late_ns) == 5 * MS


def test_a_slow_network_delays_no_tick_and_its_late_chunks_count(start: Start) -> None:
    scene = start(70 * MS)  # three and a half ticks
    scene.ticks(40)
    assert max(scene.late_ns) <= DEADLINE_NS
    assert [action.tick for action in scene.sent] == list(range(FIRST + 3, FIRST + 40))
    assert not any(report.fresh for report in scene.reports)
    assert all(report.on_time for report in scene.reports)
    first = scene.sent[0]
    assert first.position == pytest.approx(actions_of(FIRST)[3])  # indexed by absolute tick
    assert scene.reports[-1].chunks > 1


@pytest.mark.parametrize("lateness_ns", [0, 9 * MS, 15 * MS, 40 * MS])
def test_a_tick_that_comes_late_waits_only_for_what_is_left(start: Start, lateness_ns: int) -> None:
    scene = start(None)
    scene.ticks(3, lateness_ns=lateness_ns)
    assert all(late_ns <= max(DEADLINE_NS, lateness_ns) for late_ns in scene.late_ns)
    assert scene.reports[0].on_time == (max(DEADLINE_NS, lateness_ns) < TICK_NS)


def test_a_stuck_network_ends_the_actions_even_where_a_chunk_has_more(start: Start) -> None:
    scene = start(5 * MS)
    scene.loop.ensemble = TemporalEnsemble("paper", 0.01)
    scene.ticks(2)
    scene.worker.duration_ns = None
    long_chunk = np.zeros((500, 14))
    scene.loop.ensemble.add(FIRST, long_chunk)
    scene.ticks(50)
    quiet = [report for report in scene.reports if report.reason]
    stuck_ns = scene.sent[-1].stamp_ns - (FIRST + 2) * TICK_NS
    assert 180 * MS < stuck_ns <= 200 * MS + TICK_NS
    assert len(quiet) > 30
    assert all("stuck" in report.reason and report.chunks == 0 for report in quiet)
    assert max(scene.late_ns) <= DEADLINE_NS


def test_a_network_slower_than_200_ms_is_not_stuck_when_that_is_usual(start: Start) -> None:
    scene = start(300 * MS)
    scene.ticks(100)
    assert not any("stuck" in report.reason for report in scene.reports)


def test_without_an_observation_there_is_a_reason_and_no_inference(start: Start) -> None:
    scene = start(5 * MS)
    scene.inputs.missing = Missing("cam_high: newest frame is 240 ms old", "cam_high")
    scene.ticks(5)
    assert scene.sent == []
    assert scene.worker.running is None
    assert {report.reason for report in scene.reports} == {"cam_high: newest frame is 240 ms old"}


def test_no_action_but_inference_while_armed_and_the_first_tick_of_policy_has_its_chunk(start: Start) -> None:
    scene = start(5 * MS)
    scene.ticks(5, Mode.ARMED)
    assert scene.sent == []
    assert len(scene.reports) == 5
    scene.ticks(1)
    assert scene.sent[0].position == pytest.approx(actions_of(FIRST + 5)[0])  # nothing of before joins in
    scene.ticks(3, Mode.HOLD)
    assert len(scene.sent) == 1
    assert len(scene.reports) == 6


def test_what_was_predicted_before_a_hold_does_not_join_the_motion_after_it(start: Start) -> None:
    scene = start(5 * MS)
    scene.ticks(3)
    scene.ticks(2, Mode.HOLD)
    scene.ticks(1)
    assert scene.sent[-1].position == pytest.approx(actions_of(FIRST + 5)[0])
    assert scene.reports[-1].chunks == 1


def test_a_silent_supervisor_means_no_action(start: Start) -> None:
    scene = start(5 * MS)
    scene.ticks(2)
    index = FIRST + 50
    scene.clock.now = index * TICK_NS
    scene.loop.tick(Beat(index, index * TICK_NS, 0, 48))  # the last heartbeat is a second old
    assert len(scene.sent) == 2


def test_a_chunk_that_is_not_finite_ends_the_process_with_one_message(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = start(5 * MS)
    monkeypatch.setattr(scene.worker, "take", lambda *_: [Chunk(FIRST, np.full((4, 14), np.nan), 0, 1)])
    with pytest.raises(CheckpointError, match=r"my_policy predicts .*not finite.*train it again"):
        scene.ticks(1)


@given(durations_ms=st.lists(st.integers(1, 400), min_size=20, max_size=60))
def test_no_tick_waits_past_its_deadline_whatever_the_network_does(durations_ms: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        scene = Scene(patch, MS)
        for duration_ms in durations_ms:
            scene.worker.duration_ns = duration_ms * MS
            scene.ticks(1)
    assert max(scene.late_ns) <= DEADLINE_NS
    for action in scene.sent:  # a mean of t + (tick - t) / 100 over chunks of ticks t that cover this one
        newest, oldest = action.tick - FIRST, action.tick - FIRST - 0.99 * (LENGTH - 1)
        assert oldest - 1e-9 <= action.position[0] <= newest + 1e-9


def test_a_slower_motion_sends_the_same_actions_on_later_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, 5 * MS, DeployConfig(speed=0.5))
    scene.loop.ensemble.mode = "off"  # one chunk alone, as trained: action k is due 2 k ticks after its observation
    scene.loop.ensemble.execute_steps = 100
    scene.ticks(9)
    assert [action.position[0] for action in scene.sent] == pytest.approx([k / 200 for k in range(9)])


def test_weights_and_open_loop_stretches_count_trained_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    care = DeployConfig(speed=0.3)
    assert Scene(monkeypatch, MS, care).loop.ensemble.coefficient == pytest.approx(0.003)
    assert Scene(monkeypatch, MS, care, {"temporal_ensemble_coeff": None}).loop.ensemble.execute_steps == 4


def test_a_shadow_speaks_while_others_move_the_arms_and_never_on_the_topic_of_actions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, 5 * MS, DeployConfig(shadow=True))
    for mode in (Mode.IDLE, Mode.ARMED, Mode.TELEOP, Mode.POLICY, Mode.HOLD, Mode.PARK, Mode.FAULT):
        scene.ticks(2, mode)
    publishers = scene.service.bus.publishers
    assert "action_policy" not in publishers
    assert [action.tick - FIRST for action in publishers["shadow_policy"].sent] == list(range(6))


class FakeLink:
    """A link as the loop sees it: a name, and what is wrong with it."""

    name, trouble = "gpu at tcp://10.0.0.7:5571", ""


@pytest.fixture
def remote(start: Start) -> Start:
    def begin(duration_ns: int | None) -> Scene:
        scene = start(duration_ns)
        scene.loop.link = FakeLink()
        scene.loop.ensemble = TemporalEnsemble("paper", 0.01)
        return scene

    return begin


def long_answers(scene: Scene, length: int = 100) -> None:
    """Chunks of two seconds, so that only the age of observations can end the motion."""
    take = scene.worker.take

    def longer(tick: int, timeout_s: float | None) -> list[Chunk]:
        return [
            Chunk(c.tick, np.zeros((length, 14)), c.observation_stamp_ns, c.duration_ns) for c in take(tick, timeout_s)
        ]

    scene.worker.take = longer


@pytest.mark.parametrize("round_trip_ms", [5, 50, 100, 150, 190])
def test_a_remote_policy_goes_on_while_its_answers_are_for_young_observations(
    remote: Start, round_trip_ms: int
) -> None:
    scene = remote(round_trip_ms * MS)
    long_answers(scene)
    scene.ticks(150)
    assert not any(report.stuck for report in scene.reports)
    assert len(scene.sent) >= 150 - round_trip_ms // 20 - 1


@pytest.mark.parametrize("round_trip_ms", [450, 1000])
def test_answers_that_come_for_old_observations_are_not_used_however_regularly_they_come(
    remote: Start, round_trip_ms: int
) -> None:
    scene = remote(round_trip_ms * MS)
    long_answers(scene)
    scene.ticks(150)
    assert scene.sent == []
    stuck = [report for report in scene.reports if report.stuck]
    assert stuck[0].tick == FIRST + 20  # 400 ms
    assert "remote policy: no answer within" in stuck[0].reason


def test_a_link_that_falls_silent_ends_the_actions_by_the_age_of_the_observation(remote: Start) -> None:
    scene = remote(30 * MS)
    long_answers(scene)
    scene.ticks(50)
    answered_ns = scene.loop.newest.observation_stamp_ns
    scene.worker.duration_ns = None
    scene.loop.link.trouble = "the connection was cut"
    scene.ticks(50)
    assert scene.sent[-1].stamp_ns - answered_ns <= 400 * MS
    assert scene.sent[-1].stamp_ns - answered_ns > 380 * MS - TICK_NS
    report = scene.reports[-1]
    assert report.stuck
    assert "its newest answer is for an observation" in report.reason
    assert report.reason.endswith("allowed are 400 ms; gpu at tcp://10.0.0.7:5571 the connection was cut")


def test_what_was_asked_before_a_hold_is_not_acted_on_after_it(remote: Start) -> None:
    scene = remote(100 * MS)
    long_answers(scene)
    scene.ticks(20)
    scene.ticks(3, Mode.HOLD)  # shorter than the round trip: an answer is still under way
    sent = len(scene.sent)
    scene.ticks(1)
    assert len(scene.sent) == sent
    scene.ticks(20)
    first = scene.sent[sent]
    assert first.observation_stamp_ns >= scene.loop.ready_ns


def test_the_operator_arms_again_and_the_age_counts_from_then_on(remote: Start) -> None:
    scene = remote(30 * MS)
    long_answers(scene)
    scene.ticks(10)
    scene.ticks(100, Mode.HOLD)  # two seconds without a question
    scene.ticks(5, Mode.ARMED)
    scene.ticks(10)
    assert not any(report.stuck for report in scene.reports)


@given(round_trips_ms=st.lists(st.integers(1, 900), min_size=20, max_size=80))
def test_no_action_is_ever_sent_on_an_observation_older_than_allowed(round_trips_ms: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        scene = Scene(patch, MS)
        scene.loop.link = FakeLink()
        long_answers(scene)
        for round_trip_ms in round_trips_ms:
            scene.worker.duration_ns = round_trip_ms * MS
            scene.ticks(3)
    for action in scene.sent:
        assert action.stamp_ns - action.observation_stamp_ns <= 400 * MS


class TestWorker:
    """The real thread, with a network that ends when the test says so."""

    def test_a_running_inference_is_not_waited_for_and_the_newest_observation_is_next(self) -> None:
        go, begun = threading.Semaphore(0), threading.Semaphore(0)
        seen: list[Any] = []

        def predict(observation: Any) -> np.ndarray:
            seen.append(observation["n"])
            begun.release()
            go.acquire()
            return np.zeros((2, 14), np.float32)

        worker = InferenceWorker(predict)
        worker.offer(1, 10, {"n": 1})
        begun.acquire()
        assert worker.take(1, 0.0) == []
        assert worker.running_ns() > 0
        worker.offer(2, 20, {"n": 2})
        worker.offer(3, 30, {"n": 3})  # takes the place of 2, which was not begun
        go.release(2)
        chunks = worker.take(1, None)
        chunks += worker.take(3, None)
        assert [chunk.tick for chunk in chunks] == [1, 3]
        assert [chunk.observation_stamp_ns for chunk in chunks] == [10, 30]
        assert seen == [1, 3]
        worker.close()
        assert worker.running_ns() == 0

    def test_where_no_answer_came_the_next_observation_is_tried(self) -> None:
        answers = iter([None, np.zeros((2, 14), np.float32)])
        worker = InferenceWorker(lambda _: next(answers))
        worker.offer(1, 10, {})
        assert worker.take(1, 0.2) == []
        worker.offer(2, 20, {})
        assert [chunk.tick for chunk in worker.take(2, None)] == [2]
        assert worker.running_ns() == 0
        worker.close()

    def test_an_error_of_the_network_reaches_the_tick(self) -> None:
        def predict(observation: Any) -> np.ndarray:
            raise RuntimeError("out of memory")

        worker = InferenceWorker(predict)
        worker.offer(1, 0, {})
        with pytest.raises(RuntimeError, match="out of memory"):
            worker.take(1, None)
        worker.close()
