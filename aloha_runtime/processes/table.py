"""The running system as one table: every process, its module, and the jobs it runs in.

`aloha up`, the systemd units and `aloha status` all derive from it. A process is started as
`python -m aloha_runtime.processes.MODULE NAME --rig FILE --run-dir DIR`.
"""

from dataclasses import dataclass
from enum import StrEnum

from aloha_runtime.config import RigConfig


class Job(StrEnum):
    """What the system is started for."""

    TELEOP = "teleop"
    DEPLOY = "deploy"
    REPLAY = "replay"
    LOOK = "look"
    """Cameras and arms, and nobody who could move them: what a preflight looks at."""
    DEMONSTRATE = "demonstrate"
    """Teleoperation on the simulated rig with the scripted demonstrator moving the leaders."""
    CORRECT = "correct"
    """A policy on the simulated rig, from which the scripted person takes over, and to which they hand back."""


@dataclass(frozen=True)
class Process:
    """One operating-system process. `name` is file name @ instance; logs, topics and units use it."""

    name: str
    jobs: frozenset[Job]
    simulated: bool = False
    """Exists on the simulated rig only."""
    arguments: tuple[str, ...] = ()

    @property
    def stage(self) -> int:
        """Order of starting: the world, then what is attached to it, then the rest; a port exists before its driver."""
        return {"world": 0, "chain": 1}.get(self.name.split("@")[0], 2)

    @property
    def module(self) -> str:
        return "aloha_runtime.processes." + self.name.split("@")[0]


EVERY = frozenset(Job)
TELEOPERATED = frozenset({Job.TELEOP, Job.DEMONSTRATE})
DEPLOYED = frozenset({Job.DEPLOY, Job.CORRECT})


LOOPBACK = "127.0.0.1"


def listening(rig: RigConfig) -> dict[str, tuple[str, int]]:
    """Every network socket on which a process listens: (address, port). All else are files in the run directory."""
    return {} if rig.metrics_port is None else {"metrics": (LOOPBACK, rig.metrics_port)}


def every_process(rig: RigConfig) -> list[str]:
    """Names of all processes that any job of this rig may run."""
    return list(dict.fromkeys(process.name for job in Job for process in processes(rig, job, recording=("",))))


def processes(
    rig: RigConfig,
    job: Job,
    checkpoint: str = "",
    episode: tuple[str, int] = ("", 0),
    recording: tuple[str, ...] = (),
) -> list[Process]:
    """The processes of one job on one rig, in the order in which they are started (stopped in reverse).

    `checkpoint` is what a deploy job runs, `episode` (dataset, index) what a replay plays, `recording` the arguments of
    the recorder where there is one.
    """
    dataset, index = episode
    watched = rig.flight is not None and (rig.sim is None or rig.sim.clock == "wall")
    shadowed = TELEOPERATED if rig.deploy.shadow else frozenset()
    table = [
        Process("supervisor", EVERY),
        Process("world", EVERY, simulated=True),
        *(Process(f"chain@{arm}", EVERY, simulated=True) for arm in rig.arms),
        *(Process(f"camera@{camera}", EVERY) for camera in rig.cameras),
        Process("arms@followers", EVERY),
        *([Process("arms@leaders", EVERY)] if rig.arms_of("leader") else []),
        *([Process("guard", EVERY)] if rig.guard is not None else []),
        Process("teleop", TELEOPERATED | DEPLOYED if rig.teleop.takeover else TELEOPERATED),
        Process("demonstrator", frozenset({Job.DEMONSTRATE}), simulated=True),
        Process("demonstrator", frozenset({Job.CORRECT}), simulated=True, arguments=("--corrects",)),
        Process("policy", shadowed | DEPLOYED, arguments=("--checkpoint", checkpoint)),
        Process("replay", frozenset({Job.REPLAY}), arguments=("--dataset", dataset, "--episode", str(index))),
        *([Process("flight", EVERY)] if watched else []),  # what happens in virtual time can be run again
        *([Process("metrics", EVERY)] if rig.metrics_port is not None else []),
        *([Process("recorder", EVERY, arguments=recording)] if recording else []),
    ]
    return [process for process in table if job in process.jobs and (rig.sim is not None or not process.simulated)]
