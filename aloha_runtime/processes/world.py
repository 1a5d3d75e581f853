"""world: the simulated world. Servo goals from the emulated chains in, joint angles and the state of the task out."""

import contextlib

import numpy as np

from aloha_runtime import messages
from aloha_runtime.errors import TransportError
from aloha_runtime.messages import SimReset, SimState
from aloha_runtime.realtime import Pacer
from aloha_runtime.robot import IS_GRIPPER, KITS, SIDE_SLICE, SIDES, pose_vector
from aloha_runtime.service import Service, run
from aloha_runtime.sim.link import Link
from aloha_runtime.sim.world import World

PERIOD_NS = 4_000_000
"""Two physics steps: finer than the arms' cycle of 5 ms, so that a reading is at most 4 ms old."""
PUBLISH_EVERY = 2
LAG_LIMIT = 5
"""Beats made up after a stall; a longer one is lost time, as if the world had stood still."""


class WorldLoop:
    """The world between the shared block of the chains and the bus."""

    def __init__(self, service: Service) -> None:
        assert service.rig.sim is not None, "the table starts this process on simulated rigs only"
        self.service = service
        self.task, self.seed = service.rig.sim.task, service.rig.sim.seed or 0
        rig = service.rig
        self.world = World(self.task, self.seed, KITS[rig.kit], rig.grippers("follower"), rig.current_ma())
        arms = self._left_behind()
        self.link = Link.create(service.run_dir)
        self.states = service.bus.publisher(messages.SIM_STATE)
        self.resets = service.bus.subscribe(messages.SIM_RESET)
        self.episode = 0
        self.steps = 0
        self.world.reset(self.seed, arms)
        self._write_present()

    def _left_behind(self) -> np.ndarray:
        """Motor angles (14,) to begin with: where a world that died left the arms, else asleep with closed grippers."""
        angles = pose_vector(self.service.rig.sleep_pose("follower"), 0.0)
        angles[IS_GRIPPER] = self.world.closed_start()[IS_GRIPPER]
        with contextlib.suppress(TransportError):
            dead = Link.attach(self.service.run_dir)
            for side in SIDES:
                if dead.has_present(f"follower_{side}"):
                    angles[SIDE_SLICE[side]] = dead.read_present(f"follower_{side}").angles
            dead.close()
        return angles

    def cycle(self, now_ns: int, duration_ns: int) -> None:
        """Let `duration_ns` pass in the world."""
        order: SimReset | None = self.resets.latest()
        if order is not None and order.episode > self.episode:
            self.episode, self.seed = order.episode, order.task_seed
            self.world.place_objects(self.seed)
        goals, torque = np.zeros(14), np.zeros(14, dtype=bool)
        for side in SIDES:
            goals[SIDE_SLICE[side]], torque[SIDE_SLICE[side]], _ = self.link.read_command(f"follower_{side}")
        self.world.command(goals, torque)
        self.world.step(duration_ns)
        self._write_present()
        if self.service.clock.virtual:
            self.link.write_clock(now_ns)
        self.steps += 1
        if self.steps % PUBLISH_EVERY == 0:
            self._publish(now_ns)

    def _write_present(self) -> None:
        angles, velocities, efforts = self.world.angles(), self.world.velocities(), self.world.efforts_ma()
        for side in SIDES:
            part = SIDE_SLICE[side]
            self.link.write_present(
                f"follower_{side}", angles[part].tolist(), velocities[part].tolist(), efforts[part].tolist()
            )

    def _publish(self, now_ns: int) -> None:
        self.states.send(
            SimState(
                stamp_ns=now_ns,
                task=self.task,
                seed=self.seed,
                qpos=self.world.data.qpos.tolist(),
                environment_state=self.world.environment_state().tolist(),
                stage=self.world.stage(),
                success=self.world.success,
                episode=self.episode,
            )
        )


def main(service: Service) -> None:
    loop = WorldLoop(service)
    service.prepare_realtime([])
    pacer = Pacer(service.clock, PERIOD_NS)
    try:
        while not service.stopping:
            beat = pacer.wait()
            loop.cycle(beat.deadline_ns, PERIOD_NS * (1 + min(beat.skipped, LAG_LIMIT)))
            service.report(lambda: {**pacer.figures(), "stage": loop.world.stage()})
    finally:
        loop.link.close()


if __name__ == "__main__":
    run(main)
