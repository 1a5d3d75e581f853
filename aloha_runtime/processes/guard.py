"""guard: looks 50 times a second whether the followers come too near to each other or to the table, and asks for HOLD.

See `control.guard` for what it judges and why in time, `control.shape` for the arms' shape.
"""

import numpy as np

from aloha_runtime import messages
from aloha_runtime.control.guard import PERIOD_NS, Foresight, too_near
from aloha_runtime.control.shape import Near, scene_of
from aloha_runtime.messages import ArmsState, GuardState
from aloha_runtime.realtime import Pacer
from aloha_runtime.robot import GRIPPER_INDEX, Vector
from aloha_runtime.service import Service, run


class GuardLoop:
    """One look a turn. `least`: the smallest distance (m) since the start."""

    def __init__(self, service: Service) -> None:
        config = service.rig.guard
        assert config is not None, "the table starts this process on rigs with a guard only"
        self.scene = scene_of(service.rig, "follower")
        self.minimum_m = config.minimum_distance_m
        self.followers = service.bus.subscribe(messages.FOLLOWERS)
        self.state = service.bus.publisher(messages.GUARD)
        self.foresight = Foresight()
        self.least = float("inf")

    def look(self, now_ns: int) -> None:
        """Judge the newest state of the followers, and say so."""
        follower: ArmsState | None = self.followers.fresh(now_ns)
        if follower is None or follower.goal is None:
            self.foresight.forget()
            return
        position, goal = np.array(follower.position), np.array(follower.goal)
        goal[list(GRIPPER_INDEX)] = position[list(GRIPPER_INDEX)]  # one convention for both: the fingers' own
        now, soon = self._judged(follower.stamp_ns, position, goal)
        self.least = min(self.least, now.distance_m)
        cause = ""
        if too_near(now.distance_m, soon.distance_m, self.minimum_m):
            cause = (
                f"{soon.first} comes within {soon.distance_m * 1000:.0f} mm of {soon.second} "
                f"(at least {self.minimum_m * 1000:.0f} mm); arm again to move them apart"
            )
        self.state.send(GuardState(stamp_ns=follower.stamp_ns, cause=cause, distance_m=now.distance_m))

    def _judged(self, stamp_ns: int, position: Vector, goal: Vector) -> tuple[Near, Near]:
        """Nearest pair now and soon, of where the arms are and of where they are told to be."""
        way = self.foresight.way(stamp_ns, goal)
        nearest = self.scene.nearest_of(np.array([position, goal, position + way, goal + way]))
        return min(nearest[:2]), min(nearest[2:])

    def figures(self) -> dict[str, float]:
        """Named numbers for the health report."""
        return {"least_distance_m": self.least} if self.least < float("inf") else {}


def main(service: Service) -> None:
    loop = GuardLoop(service)
    service.prepare_realtime([], below=1)
    pacer = Pacer(service.clock, PERIOD_NS)
    while not service.stopping:
        beat = pacer.wait()
        loop.look(beat.deadline_ns + beat.lateness_ns)
        service.report(loop.figures)


if __name__ == "__main__":
    run(main)
