"""What a loop that talks to servos knows of its computer: its own turns, an echo, and the turns of emulated chains."""

import contextlib
from pathlib import Path

from aloha_runtime.config import RigConfig
from aloha_runtime.control.gate import GateTiming
from aloha_runtime.errors import TransportError
from aloha_runtime.hardware.echo import Echo
from aloha_runtime.messages import MODE, MS
from aloha_runtime.robot import Role
from aloha_runtime.sim.link import Link
from aloha_runtime.stillness import ENDED_NS, Stillness

LATE_NS = 12 * MS
"""Two cycles of 200 Hz and the wire; a quiet computer needs 5.2 (`commands/faults/canary.py`)."""
CHAIN_LATE_NS = 30 * MS
"""An emulated chain looks up at least every 20 ms (`sim/pty.py`)."""

SILENCES_NS = {"the supervisor is silent": int(MODE.max_age_ms * MS), "no action for": GateTiming().resume_within_ns}
"""How causes of the pilot and the gate begin that tell of a silence, and how long it has lasted when they do."""


class Witnesses:
    """Call `look` once a turn. In virtual time, in which nobody is late, there are none."""

    def __init__(self, rig: RigConfig, run_dir: Path, role: Role, virtual: bool) -> None:
        self.stillness = Stillness()
        self._run_dir, self._virtual = run_dir, virtual
        emulated = rig.sim is not None and not virtual
        self._chains = [f"{role}_{side}" for side in rig.arms_of(role)] if emulated else []
        self._link: Link | None = None
        self._attach_at_ns = 0
        self._echo: Echo | None = None
        self._said, self._instead = "", ""
        if not virtual:
            with contextlib.suppress(OSError):  # no terminal left: one witness less
                self._echo = Echo()

    def look(self, now_ns: int) -> None:
        """Who has had a turn by now (monotonic)."""
        if self._virtual:
            return
        self.stillness.turn("loop", now_ns, LATE_NS)
        if self._echo is not None and self._echo.came_back():
            self.stillness.turn("echo", now_ns, LATE_NS)
        for arm in self._chains:
            self._look_at_chain(arm, now_ns)

    def _look_at_chain(self, arm: str, now_ns: int) -> None:
        """The chain writes its turns into the block that it shares with the world; a restarted world has a new one."""
        turn_ns = self._link.read_turn(arm) if self._link is not None else 0
        if turn_ns:
            self.stillness.turn(arm, turn_ns, CHAIN_LATE_NS)
        if now_ns - turn_ns <= ENDED_NS:
            return
        if now_ns < self._attach_at_ns or (self._link is not None and self._link.is_current):
            return
        self._attach_at_ns = now_ns + ENDED_NS
        if self._link is not None:
            self._link.close()
            self._link = None
        with contextlib.suppress(TransportError):  # chains of a test, without a world
            self._link = Link.attach(self._run_dir)

    def reworded(self, cause: str, now_ns: int) -> str:
        """A cause as the operator is to read it: a silence that the computer is to blame for says so. Judged once, when
        the cause is given first."""
        if cause != self._said:
            self._said = self._instead = cause
            for beginning, silent_ns in SILENCES_NS.items():
                if cause.startswith(beginning):
                    self._instead = self.stillness.excuse(silent_ns, now_ns, silent_ns) or cause
        return self._instead

    def close(self) -> None:
        """Give the echo's terminal and the chains' block back."""
        if self._echo is not None:
            self._echo.close()
        if self._link is not None:
            self._link.close()
            self._link = None
