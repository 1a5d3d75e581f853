"""An emulated arm without a simulated world, as a process of its own: for benches, tests and trying out a driver.

`python -m aloha_runtime.sim.standalone follower_left DIR` serves DIR/ttyDXL_follower_left until SIGTERM.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import get_args

from aloha_runtime.control.limits import default_limits
from aloha_runtime.errors import SimulationError
from aloha_runtime.robot import KITS, Role, Side
from aloha_runtime.sim.chain import Chain
from aloha_runtime.sim.chain_control import Answer, BackDoor, Request, ask, control_path
from aloha_runtime.sim.goal_track import envelope
from aloha_runtime.sim.monitor import Monitor
from aloha_runtime.sim.pty import ChainServer, Terminal
from aloha_runtime.sim.servo import ServoPlant

START_TIMEOUT_S = 20.0
JITTER_S = 0.02
"""See `processes.chain`: stamps of goals on a shared machine."""


def port_of(run_dir: Path, arm: str) -> Path:
    """Where an arm's terminal appears."""
    return run_dir / f"ttyDXL_{arm}"


class EmulatedArm:
    """Context manager: the process of one emulated arm. `port` is its terminal, `ask` its back door."""

    def __init__(self, run_dir: Path, arm: str = "follower_left", firmware: int = 46) -> None:
        self.run_dir = run_dir
        self.arm = arm
        self.port = port_of(run_dir, arm)
        self._command = [sys.executable, "-m", __name__, arm, str(run_dir), "--firmware", str(firmware)]

    def __enter__(self) -> "EmulatedArm":
        self.process = subprocess.Popen(self._command)
        give_up = time.monotonic() + START_TIMEOUT_S
        while not (self.port.exists() and control_path(self.run_dir, self.arm).exists()):
            if self.process.poll() is not None or time.monotonic() > give_up:
                self.process.kill()
                raise SimulationError(f"the emulated arm {self.arm} did not start in {self.run_dir}: see its message")
            time.sleep(0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait()

    def ask(self, request: Request) -> Answer:
        """Put a request to the arm's back door; TransportError when it refuses."""
        return ask(self.run_dir, self.arm, request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arm", choices=[f"{role}_{side}" for role in get_args(Role) for side in get_args(Side)])
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--firmware", type=int, default=46)
    arguments = parser.parse_args()
    role: Role = "leader" if arguments.arm.startswith("leader") else "follower"
    side: Side = "left" if arguments.arm.endswith("left") else "right"
    bounds = envelope(role, default_limits(role), KITS["aloha"].gripper(role), side)
    server = ChainServer(
        Chain(role, ServoPlant(role), arguments.firmware),
        Terminal(port_of(arguments.run_dir, arguments.arm)),
        Monitor(bounds, JITTER_S),
        None,
    )
    door = BackDoor(server, arguments.run_dir, arguments.arm)
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: stopped.append(received))
    server.terminal.plug()
    try:
        server.serve(lambda: bool(stopped), door.look)
    finally:
        server.close()
        door.close()


if __name__ == "__main__":
    main()
