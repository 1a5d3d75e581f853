"""Logs made up for the tests: messages of a demonstration in the simulated world, with delays from a known seed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aloha_runtime import config, messages
from aloha_runtime.commands.observe import Flow, Log, Usage
from aloha_runtime.commands.operate import with_task
from aloha_runtime.messages import MS, Action, ArmsState, FrameInfo, Health, Mode, ModeHeartbeat, PolicyTick, SimState
from aloha_runtime.processes.table import Job, processes
from aloha_runtime.robot import DOF, GRIPPER_INDEX, TICK_NS
from aloha_runtime.sim.episode import Observation, demonstration
from aloha_runtime.sim.world import World

START_NS = 1000 * TICK_NS
RIG = with_task(config.load("sim"), seed=7, task="transfer_cube")


def log(content: Mapping[str, list[Any]], seconds: float = 1.0, policy: str = "demo", **rest: Any) -> Log:
    """A log that begins at `START_NS`."""
    return Log(RIG, policy, START_NS, START_NS + int(seconds * 1e9), content, **rest)


def heartbeats(mode: Mode, count: int, first_ns: int = START_NS) -> list[ModeHeartbeat]:
    """`count` heartbeats of one mode, 20 ms apart."""
    return [ModeHeartbeat(stamp_ns=first_ns + index * TICK_NS, mode=mode, order_ns=first_ns) for index in range(count)]


def policy_tick(tick: int, lateness_ms: float = 8.0, **changed: Any) -> PolicyTick:
    """What the policy says of a tick that went well."""
    usual = {
        "stamp_ns": tick * TICK_NS + int(lateness_ms * MS),
        "tick": tick,
        "lateness_ns": int(lateness_ms * MS),
        "on_time": lateness_ms < 20,
        "fresh": True,
        "chunks": 40,
        "frame_age_ns": 15 * MS,
        "joint_skew_ns": 6 * MS,
        "inference_ns": 7 * MS,
    }
    return PolicyTick(**(usual | changed))


def followers(count: int, mode: Mode = Mode.POLICY, **changed: Any) -> list[ArmsState]:
    """`count` cycles of the followers at 200 Hz, at rest."""
    zeros = [0.0] * DOF
    return [
        ArmsState(
            **({
                "stamp_ns": START_NS + index * 5 * MS, "seq": index + 1, "position": zeros, "velocity": zeros,
                "effort_ma": zeros, "goal": zeros, "target": zeros, "mode": mode,
            } | changed)
        )
        for index in range(count)
    ]  # fmt: skip


def demonstrated(seed: int = 7, ticks: int | None = None) -> Log:
    """A whole episode as the demo sees it: the scripted demonstration in the place of the policy, 10 ms late."""
    world, random = World("transfer_cube", seed), np.random.default_rng(seed)
    act, duration = demonstration(world, seed)
    content: dict[str, list[Any]] = {topic.name: [] for topic in messages.TOPICS}
    sent = previous = act(Observation(0.0, world.angles(), world.environment_state(), {}))
    for index in range(ticks or duration):
        now, tick = START_NS + index * TICK_NS, START_NS // TICK_NS + index
        previous, sent = sent, act(Observation(index * 0.02, world.angles(), world.environment_state(), {}))
        late_ms = 4 + float(random.gamma(2.0, 1.5))
        stamp_ns = now + int(late_ms * MS)
        action = Action(stamp_ns=stamp_ns, tick=tick, position=list(sent), observation_stamp_ns=now - 14 * MS)
        content["action_policy"].append(action)
        content["policy_tick"].append(policy_tick(tick, late_ms, frame_age_ns=14 * MS + int(random.gamma(2, MS))))
        content["mode"].append(ModeHeartbeat(stamp_ns=now, mode=Mode.POLICY, order_ns=START_NS))
        for cycle in range(4):
            cycle_ns = now + cycle * 5 * MS
            content["followers"].append(_cycle(world, cycle_ns, previous + (sent - previous) * cycle / 3, action))
            if cycle % 2 == 0:
                content["sim_state"].append(_sim_state(world, cycle_ns, seed))
    return _dressed(content, (ticks or duration) * 0.02)


def _cycle(world: World, stamp_ns: int, goal: NDArray[np.float64], action: Action) -> ArmsState:
    """One cycle of the arms: the state, then 5 ms of the world under the goal."""
    state, velocity, angles = world.angles(), world.velocities(), goal.copy()
    for index in GRIPPER_INDEX:
        state[index] = world.grippers["left"].state_from_angle(float(state[index]))
        angles[index] = world.grippers["left"].angle_from_action(float(goal[index]))
    reached = action if action.stamp_ns <= stamp_ns else None
    world.command(angles, np.ones(DOF, dtype=bool))
    world.step(5 * MS)
    return ArmsState(
        stamp_ns=stamp_ns,
        seq=stamp_ns // (5 * MS),
        position=list(state),
        velocity=list(velocity),
        effort_ma=list(world.efforts_ma()),
        goal=list(goal),
        target=action.position,
        action_tick=reached.tick if reached else -1,
        action_stamp_ns=reached.stamp_ns if reached else 0,
        mode=Mode.POLICY,
    )


def _sim_state(world: World, stamp_ns: int, seed: int) -> SimState:
    return SimState(
        stamp_ns=stamp_ns,
        task=world.task,
        seed=seed,
        qpos=list(world.snapshot().qpos),
        environment_state=list(world.environment_state()),
        stage=world.stage(),
        success=world.success,
    )


def _dressed(content: dict[str, list[Any]], seconds: float) -> Log:
    """The log of these messages, with health reports, rates and usage as a real stack has them."""
    content["camera.cam_high"] = [
        FrameInfo(
            stamp_ns=START_NS + index * TICK_NS, camera="cam_high", height=120, width=160, ring="", slot=index % 8
        )
        for index in range(int(seconds * 50))
    ]
    table = processes(RIG, Job.DEPLOY, "demo")
    for process in table:
        content[f"health.{process.name}"] = [
            Health(stamp_ns=START_NS, process=process.name, pid=1, figures={"cycles": 9.0})
        ]
    flows = {name: Flow(50.0, len(kept) / seconds, len(kept), 0) for name, kept in content.items() if kept}
    usage = {process.name: Usage(3.0 + 4 * index, 40.0 + 9 * index) for index, process in enumerate(table)}
    return log(content, seconds, flows=flows, usage=usage)
