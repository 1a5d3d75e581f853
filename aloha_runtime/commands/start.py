"""`aloha start`: the policy of a running system (a service, `aloha up --job deploy`) begins to move the arms, after the
preflight of `aloha deploy`, which refuses it in the same words."""

from collections.abc import Collection
from pathlib import Path

from rich.console import Console

from aloha_runtime import config, messages
from aloha_runtime.bus import Bus, Subscriber
from aloha_runtime.commands import operate
from aloha_runtime.commands.findings import Level
from aloha_runtime.commands.stack import POLL_S
from aloha_runtime.control.verbs import ADVICE
from aloha_runtime.errors import AlohaError, TransportError
from aloha_runtime.messages import Health, Mode, ModeHeartbeat
from aloha_runtime.realtime import NS_PER_S, Clock, WallClock
from aloha_runtime.run_directory import RIG_FILE, default_log_dir, default_run_dir

HEARD_WITHIN_S = 3.0
"""A health report comes every 0.2 s."""


class Found:
    """A system that somebody else has started, as a preflight looks at it."""

    def __init__(self, bus: Bus, run_dir: Path, clock: Clock) -> None:
        self._rig_file = run_dir / RIG_FILE
        self.run_dir, self.bus, self.clock = run_dir, bus, clock
        self.watch()
        self.rig = config.load(str(self._rig_file))
        self.mode = bus.subscribe(messages.MODE)
        self.health: dict[str, Subscriber] = {"policy": bus.subscribe(messages.health_topic("policy"))}

    def watch(self) -> None:
        """Raises TransportError when the system has ended."""
        if not self._rig_file.is_file():
            raise TransportError(f"nothing runs in {self.run_dir}: start the rig with `aloha up`")

    def pause(self, seconds: float = POLL_S) -> None:
        """Let time pass."""
        self.clock.sleep_until(self.clock.now_ns() + int(seconds * NS_PER_S))

    def hear(self) -> tuple[Mode, str]:
        """Mode of the rig and name of the checkpoint, as the running processes say. Raises AlohaError without them."""
        end_ns = self.clock.now_ns() + int(HEARD_WITHIN_S * NS_PER_S)
        while self.clock.now_ns() < end_ns:
            self.watch()
            self.pause()
            said: ModeHeartbeat | None = self.mode.latest()
            report: Health | None = self.health["policy"].latest()
            if said is not None and report is not None:
                return Mode(said.mode), report.subject
        missing = "the supervisor" if self.mode.latest() is None else "a policy"
        raise AlohaError(
            f"{missing} is not heard in {self.run_dir}: see `aloha status`; a policy runs there after "
            "`aloha up --job deploy --checkpoint ...` or `aloha install --job deploy ...`"
        )


def start_policy(run_dir: Path | None, accepted: Collection[str], out: Path | None) -> None:
    """Ask the supervisor for POLICY when nothing stands against it. `accepted`: warnings that a person has judged, by
    name; `out`: folder of the preflight's page (beside the logs: a service's user writes nowhere else). Raises
    CheckpointError with what stands against it."""
    run_dir = run_dir or default_run_dir()
    out = out or default_log_dir().with_name("preflight")
    with Bus(run_dir, WallClock()) as bus:
        found = Found(bus, run_dir, WallClock())
        mode, checkpoint = found.hear()
        if mode not in (Mode.ARMED, Mode.POLICY):
            raise AlohaError(f"{mode}: policy is not possible in {mode}; {ADVICE[mode]}")
        if mode is Mode.ARMED:
            _look(found, checkpoint, accepted, out)
    operate.ask("policy", run_dir)


def _look(found: Found, checkpoint: str, accepted: Collection[str], out: Path) -> None:
    from aloha_runtime.commands.preflight import Preflight  # brings torch, which other verbs need not wait for

    flight = Preflight(checkpoint, found.rig, accepted, Console(highlight=False, soft_wrap=True))
    flight.files()
    flight.refuse()
    if found.rig.sim is None or found.rig.sim.clock == "wall":  # in virtual time nobody from outside sees the present
        flight.live(found, out, at_start=True)
    flight.show((Level.WARN,))
    flight.refuse()
