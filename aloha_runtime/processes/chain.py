"""chain@ARM: the emulated servos of one arm of the simulated rig, behind a pseudo-terminal in the run directory."""

import threading
import time
from collections.abc import Sequence

from aloha_runtime.control.limits import rig_limits
from aloha_runtime.errors import SimulationError, TransportError
from aloha_runtime.messages import MS
from aloha_runtime.robot import SIDES, Role, Side
from aloha_runtime.service import Service, run
from aloha_runtime.sim.chain import Chain
from aloha_runtime.sim.chain_control import BackDoor
from aloha_runtime.sim.goal_track import envelope
from aloha_runtime.sim.link import Link, LinkPlant
from aloha_runtime.sim.monitor import Monitor
from aloha_runtime.sim.pty import ChainServer, Terminal
from aloha_runtime.sim.servo import ServoPlant

WORLD_TIMEOUT_S = 30.0
"""The world compiles its model first; on a loaded machine that takes some seconds."""
WORLD_CHECK_S = 1.0
JITTER_S = 0.02
"""How far wall-clock stamps of goals may be off on a machine that also renders: for the monitor's speed rules."""
VIRTUAL_JITTER_S = 0.004
"""In virtual time the chain's clock is the world's, which beats every 4 ms."""
VIRTUAL_BEAT_NS = 100 * MS
"""In virtual time the chain answers the process that has the turn; its own turns only carry health reports."""


class ChainLoop:
    """One arm's chain between the driver's terminal and the simulated world."""

    def __init__(self, service: Service) -> None:
        assert service.rig.sim is not None, "the table starts this process on simulated rigs only"
        self.service = service
        self.arm, self.rig = service.instance, service.rig
        role, side = _role_and_side(self.arm)
        self.link = Link.attach(service.run_dir, WORLD_TIMEOUT_S)
        self.in_world = role == "follower"
        self.plant = LinkPlant(self.link, self.arm) if self.in_world else self._leader(side)
        if self.in_world:
            self._await_world()
        virtual = service.clock.virtual
        ports = {str(name): arm.port for name, arm in self.rig.arms.items()}
        limits = rig_limits(self.rig.limits, self.rig.deploy, role)
        bounds = envelope(role, limits, self.rig.gripper(role, side), side)
        self.server = ChainServer(
            Chain(role, self.plant),
            Terminal(service.run_dir / ports[self.arm]),
            Monitor(bounds, VIRTUAL_JITTER_S if virtual else JITTER_S),
            self._virtual_now if virtual else None,
        )
        self.door = BackDoor(self.server, service.run_dir, self.arm)
        self._next_check_s = 0.0

    def _leader(self, side: Side) -> ServoPlant:
        """A leader asleep. Where its weight is not compensated, a person would have to hold it all the time: there it
        has none, so that it can be let go."""
        asleep = (*self.rig.sleep_pose("leader"), self.rig.gripper("leader", side).angle_open)
        return ServoPlant("leader", asleep, self._hand, self.rig.teleop.gravity_compensation > 0)

    def _hand(self) -> Sequence[float] | None:
        return self.link.read_hand(self.arm)

    def _virtual_now(self) -> int:
        return self.link.read_clock()

    def _await_world(self) -> None:
        give_up = time.monotonic() + WORLD_TIMEOUT_S
        while not self.link.has_present(self.arm):
            if time.monotonic() > give_up or self.service.stopping:
                raise TransportError(f"the simulated world does not move {self.arm}: look at the log of `world`")
            time.sleep(0.01)

    def look(self) -> None:
        """After every wake-up: the adapter comes back, a restarted world is found."""
        self.door.look()
        now_s = time.monotonic()
        if now_s < self._next_check_s:
            return
        self._next_check_s = now_s + WORLD_CHECK_S
        if not self.link.is_current:
            self._find_world()

    def _find_world(self) -> None:
        """Until a new world moves this arm, the old block stays: the arm stands where it last was."""
        try:
            link = Link.attach(self.service.run_dir)
        except TransportError:
            return
        if self.in_world and not link.has_present(self.arm):
            link.close()
            return
        self.link.close()
        self.link = link
        if isinstance(self.plant, LinkPlant):
            self.plant.link = link
        self.server.chain.drive.changed()

    def figures(self) -> dict[str, float]:
        """Named numbers for the health report."""
        report, chain = self.server.monitor.report(), self.server.chain
        return {
            "packets": chain.packets,
            "crc_errors": chain.crc_errors,
            "replies_lost": self.server.lost,
            "goals": report.goals,
            "goals_outside_envelope": sum(report.counts.values()),
            "temperature_max_c": max(servo.temperature for servo in chain.servos),
        }

    def serve(self) -> None:
        """Serve until the process is told to stop."""
        service, server = self.service, self.server
        server.terminal.plug()
        if not service.clock.virtual:
            server.serve(lambda: service.stopping, self._beat)
            return
        thread = threading.Thread(target=server.serve, args=(lambda: service.stopping, self.look), daemon=True)
        thread.start()
        try:
            while not service.stopping:
                service.report(self.figures)
                service.clock.sleep_until(service.clock.now_ns() + VIRTUAL_BEAT_NS)
        finally:
            service.stop()
            thread.join()

    def _beat(self) -> None:
        self.link.write_turn(self.arm, time.monotonic_ns())
        self.look()
        self.service.report(self.figures)

    def close(self) -> None:
        """Take the terminal and the sockets away."""
        self.server.close()
        self.door.close()
        self.link.close()


def _role_and_side(arm: str) -> tuple[Role, Side]:
    for role in ("leader", "follower"):
        for side in SIDES:
            if arm == f"{role}_{side}":
                return ("leader" if role == "leader" else "follower"), side
    raise SimulationError(f"no arm is named {arm!r}: name the process chain@follower_left, chain@leader_right, ...")


def main(service: Service) -> None:
    loop = ChainLoop(service)
    service.prepare_realtime([])  # a real servo is never kept waiting by what else the machine does
    try:
        loop.serve()
    finally:
        loop.close()


if __name__ == "__main__":
    run(main)
