"""Whatever happens in whatever order: no chunk that was predicted under one order moves the arms under another. And a
network that fails in the middle is a HOLD with its reason."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_arms_process import Scene as Arms
from test_policy_process import FIRST, FakeLink, Scene, long_answers

from aloha_runtime import messages
from aloha_runtime.act.worker import Chunk
from aloha_runtime.config import DeployConfig
from aloha_runtime.control.delay import TELEOP_NS, lead_ns, reaches_ns
from aloha_runtime.errors import CheckpointError
from aloha_runtime.messages import MS, Mode, ModeHeartbeat
from aloha_runtime.realtime import Beat
from aloha_runtime.robot import IS_GRIPPER, TICK_NS

LENGTH = 40


class Orders:
    """A scene whose chunks say under which order their observation was handed over: every number is that order."""

    def __init__(self, patch: pytest.MonkeyPatch, mode: str, remote: bool = False) -> None:
        self.scene = Scene(patch, MS, ensemble=mode)
        if remote:
            self.scene.loop.link = FakeLink()  # type: ignore[assignment]
        self.order_ns = self.heard_ns = 1
        self.mode = self.heard = Mode.ARMED
        self._under: dict[int, int] = {}
        worker = self.scene.worker
        offer, take = worker.offer, worker.take

        def noted(tick: int, stamp_ns: int, observation: Any) -> None:
            self._under[tick] = self.heard_ns
            offer(tick, stamp_ns, observation)

        def marked(tick: int, timeout_s: float | None) -> list[Chunk]:
            return [
                Chunk(c.tick, np.full((LENGTH, 14), float(self._under[c.tick])), c.observation_stamp_ns, c.duration_ns)
                for c in take(tick, timeout_s)
            ]

        worker.offer, worker.take = noted, marked  # type: ignore[method-assign]

    def order(self, mode: Mode) -> None:
        self.order_ns += 1
        self.mode = mode

    def ticks(self, count: int, heard: bool = True) -> None:
        scene = self.scene
        for _ in range(count):
            index = -(-scene.clock.now // TICK_NS)
            scene.clock.sleep_until(index * TICK_NS)
            if heard:
                beat = ModeHeartbeat(stamp_ns=index * TICK_NS, mode=self.mode, order_ns=self.order_ns)
                scene.service.bus.put(messages.MODE, beat)
                self.heard, self.heard_ns = self.mode, self.order_ns
            before = len(scene.sent)
            scene.loop.tick(Beat(index, index * TICK_NS, 0, 0))
            for action in scene.sent[before:]:
                assert self.heard is Mode.POLICY
                assert action.position == pytest.approx([self.heard_ns] * 14), "of this order alone"
                assert action.order_ns == self.heard_ns
            scene.clock.now += 1


EVENT = st.one_of(
    st.tuples(st.just("tick"), st.integers(1, 12)),
    st.tuples(st.just("mode"), st.sampled_from([Mode.POLICY, Mode.POLICY, Mode.TELEOP, Mode.ARMED, Mode.HOLD])),
    st.tuples(st.just("duration_ms"), st.sampled_from([1, 5, 30, 70, 150])),
    st.tuples(st.just("silence"), st.integers(1, 15)),
)


@given(
    events=st.lists(EVENT, min_size=4, max_size=25),
    mode=st.sampled_from(["paper", "newest", "off"]),
    remote=st.booleans(),
)
def test_no_order_of_events_brings_back_a_chunk_of_before(events: list[Any], mode: str, remote: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        bench = Orders(patch, mode, remote)
        for kind, value in events:
            if kind == "tick":
                bench.ticks(value)
            elif kind == "mode":
                bench.order(value)
            elif kind == "duration_ms":
                bench.scene.worker.duration_ns = value * MS
            else:
                bench.ticks(value, heard=False)


@pytest.mark.parametrize("mode", ["paper", "off"])
@pytest.mark.parametrize("between", [(Mode.TELEOP, 5), (Mode.TELEOP, 0), (Mode.HOLD, 1), (Mode.ARMED, 3)])
def test_what_was_in_flight_before_a_person_corrected_is_not_used_after_the_handback(
    monkeypatch: pytest.MonkeyPatch, mode: str, between: tuple[Mode, int]
) -> None:
    bench = Orders(monkeypatch, mode)
    bench.order(Mode.POLICY)
    bench.scene.worker.duration_ns = 70 * MS
    bench.ticks(20)
    assert len(bench.scene.sent) > 10
    bench.order(between[0])
    bench.ticks(between[1])
    bench.order(Mode.POLICY)
    sent = len(bench.scene.sent)
    bench.ticks(12)
    assert len(bench.scene.sent) > sent


def test_a_remote_answer_that_came_too_late_joins_no_later_action(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, 450 * MS)
    scene.loop.link = FakeLink()  # type: ignore[assignment]
    long_answers(scene)
    scene.ticks(24)
    scene.worker.duration_ns = 5 * MS
    scene.ticks(4)
    covered = [report.chunks for report in scene.reports if report.chunks]
    assert covered[:2] == [1, 2], "of the young answers alone"


class Lost:
    """A worker whose network fails, as `InferenceWorker` hands it on: raised by every `take`."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, tick: int, timeout_s: float | None) -> list[Chunk]:
        raise self.error


def test_a_gpu_that_is_lost_in_the_middle_is_a_hold_with_the_reason_and_no_action_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, 5 * MS)
    scene.loop._told = lambda error: f"inference failed on the GPU: {error}; see `nvidia-smi`"
    scene.ticks(5)
    sent = len(scene.sent)
    scene.worker.take = Lost(RuntimeError("CUDA error: device lost"))  # type: ignore[method-assign]
    scene.ticks(3)
    assert len(scene.sent) == sent, "not even from the chunks that are there"
    assert all(report.stuck for report in scene.reports[-3:])
    assert scene.reports[-1].reason == "inference failed on the GPU: CUDA error: device lost; see `nvidia-smi`"
    scene.ticks(2, Mode.HOLD)
    scene.ticks(2, Mode.ARMED)
    scene.ticks(2)
    assert len(scene.sent) == sent, "arming again does not mend it"
    assert scene.reports[-1].stuck


def test_what_the_operator_can_mend_still_ends_the_process_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, 5 * MS)
    scene.worker.take = Lost(CheckpointError("another checkpoint is served now"))  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match="another checkpoint"):
        scene.ticks(1)


def test_the_checkpoints_own_way_is_followed_on_the_rig(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Scene(monkeypatch, MS, says={"temporal_ensemble_coeff": None, "n_action_steps": 7}).loop.ensemble
    assert (own.mode, own.execute_steps) == ("off", 7)
    own = Scene(monkeypatch, MS, says={"temporal_ensemble_coeff": 0.3}).loop.ensemble
    assert (own.mode, own.coefficient) == ("paper", 0.3)
    asked = Scene(monkeypatch, MS, says={"temporal_ensemble_coeff": 0.3}, ensemble="newest", ensemble_m=0.05)
    assert (asked.loop.ensemble.mode, asked.loop.ensemble.coefficient) == ("newest", 0.05)


CYCLE_NS = 5 * MS


@pytest.mark.parametrize("duration_ms", [1, 4, 7, 12, 70])
def test_an_action_is_of_the_moment_at_which_the_goal_is_there(
    monkeypatch: pytest.MonkeyPatch, duration_ms: int
) -> None:
    scene = Scene(monkeypatch, duration_ms * MS, lead_ms=None)
    take = scene.worker.take

    def straight(tick: int, timeout_s: float | None) -> list[Chunk]:
        """Joint angles are time itself, in ticks."""
        return [
            Chunk(c.tick, np.repeat((c.tick - FIRST + np.arange(30.0))[:, None], 14, axis=1), 0, 1)
            for c in take(tick, timeout_s)
        ]

    scene.worker.take = straight  # type: ignore[method-assign]
    scene.ticks(20)
    assert len(scene.sent) > 10
    for action in scene.sent:
        meant_ns = reaches_ns(action.stamp_ns, CYCLE_NS) - TELEOP_NS
        assert action.position[0] == pytest.approx(meant_ns / TICK_NS - FIRST)
        assert meant_ns > action.tick * TICK_NS


def test_what_a_shadow_says_of_a_tick_is_of_that_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, 5 * MS, DeployConfig(shadow=True), {"temporal_ensemble_coeff": None}, lead_ms=None)
    scene.ticks(3, Mode.TELEOP)
    said = scene.service.bus.publishers["shadow_policy"].sent
    assert [action.position[0] for action in said] == pytest.approx([0.0, 1.0, 2.0])


def test_the_lead_is_what_the_way_adds_to_a_persons_delay_and_is_bounded() -> None:
    assert lead_ns(0, 0, CYCLE_NS) == 5 * MS + TICK_NS - TELEOP_NS
    assert lead_ns(0, 6 * MS, CYCLE_NS) == 10 * MS + TICK_NS - TELEOP_NS
    assert lead_ns(0, 10_000 * MS, CYCLE_NS) == 100 * MS


def test_arms_pass_over_an_action_that_was_computed_under_another_order() -> None:
    arms = Arms("follower")
    arms.turn(Mode.ARMED, 400, "start")
    arms.turn(Mode.POLICY, 2)
    far = np.array(arms.sent[-1].goal) + np.where(IS_GRIPPER, 0.0, 0.05)

    def sent_under(order_ns: int) -> messages.ArmsState:
        for _ in range(10):
            now_ns = arms.clock.now + CYCLE_NS
            said = messages.Action(stamp_ns=now_ns, tick=now_ns // TICK_NS, position=far.tolist(), order_ns=order_ns)
            arms.service.bus.put(messages.ACTION_POLICY, said)
            arms.turn(Mode.POLICY)
        return arms.sent[-1]

    order_ns = arms.loop.pilot.order_ns
    state = sent_under(order_ns - 1)
    assert state.target is None
    assert np.abs(np.array(state.goal) - far).max() > 0.04
    state = sent_under(order_ns)
    assert state.target == pytest.approx(far)
