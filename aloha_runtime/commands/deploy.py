"""`aloha deploy`: a policy moves the followers, with care (slower, not for long, tighter limits), after a preflight."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pydantic import ValidationError
from rich.console import Console

from aloha_runtime import config
from aloha_runtime.act.card import directory_of, pinned
from aloha_runtime.act.ensemble import MODES
from aloha_runtime.act.observe import refuse_unfit
from aloha_runtime.commands import going_on, operate
from aloha_runtime.commands.findings import Level
from aloha_runtime.commands.shadow import job_of, shadow
from aloha_runtime.commands.stack import Stack
from aloha_runtime.config import DeployConfig, RigConfig, TighterLimits
from aloha_runtime.config_parts import PolicyConfig
from aloha_runtime.control.limits import rig_limits
from aloha_runtime.errors import ConfigError
from aloha_runtime.processes.table import Job
from aloha_runtime.robot import ROLES

if TYPE_CHECKING:
    from aloha_runtime.commands.preflight import Preflight


def deploy(
    rig_name: str,
    checkpoint: str,
    *,
    seed: int | None,
    task: str | None,
    run_dir: Path | None,
    care: DeployConfig,
    engine: str | None = None,
    ensemble: str | None = None,
    takeover: bool = False,
    teleoperated: bool = False,
    scripted: bool = False,
    out: Path = Path("outputs/deploy"),
    accepted: Collection[str] = (),
) -> None:
    """A policy moves the followers until Ctrl-C or for `care.max_duration_s`. `engine` replaces the rig's
    `policy.engine`, `ensemble` its `policy.ensemble`, `takeover` its `teleop.takeover`; `care` tightens its `deploy`.
    In a shadow, nothing moves unless `teleoperated` (or `scripted`). `out` gets the preflight's page, and what a shadow
    has seen. `accepted`: warnings of the preflight, by name."""
    rig = _rig(rig_name, seed, task, takeover, care, engine, ensemble)
    checkpoint = pinned(checkpoint)
    refuse_unfit(directory_of(checkpoint), rig)
    if takeover and rig.deploy.shadow:
        raise ConfigError("--takeover takes over from a policy that moves the arms, and --shadow moves none")
    if (teleoperated or scripted) and not rig.deploy.shadow:
        raise ConfigError("--teleop and --scripted say who moves the arms while the policy only shadows: add --shadow")
    from aloha_runtime.commands import preflight  # brings torch, which a wrong path need not wait for

    flight = preflight.Preflight(checkpoint, rig, accepted, Console(highlight=False, soft_wrap=True))
    if rig.deploy.shadow:
        job = job_of(rig, teleoperated, scripted)
        flight.files()
        flight.show((Level.WARN,))
        flight.refuse(judged=True)  # what is doubtful is what a shadow is for
        shadow(rig, checkpoint, job, out, run_dir)
    else:
        flight.files()
        flight.refuse()
        _drive(rig, checkpoint, flight, run_dir, out, takeover)


def _rig(
    name: str,
    seed: int | None,
    task: str | None,
    takeover: bool,
    care: DeployConfig,
    engine: str | None,
    ensemble: str | None,
) -> RigConfig:
    """The rig as the options want it; ConfigError for an unknown engine or ensemble."""
    rig = with_care(operate.with_takeover(operate.with_task(config.load(name), seed, task), takeover), care)
    if engine is not None:
        known = get_args(config.EngineName)
        if engine not in known:
            raise ConfigError(f"--engine {engine} is none of {', '.join(known)}")
        rig = rig.model_copy(update={"policy": rig.policy.model_copy(update={"engine": engine})})
    return rig if ensemble is None else with_ensemble(rig, ensemble)


def _drive(
    rig: RigConfig, checkpoint: str, flight: "Preflight", run_dir: Path | None, out: Path, takeover: bool
) -> None:
    """Arms to the start pose, the live part of the preflight, then the policy until Ctrl-C or its time is over."""
    stack = Stack(rig, Job.DEPLOY, run_dir, checkpoint, say=Console().print)
    with going_on.told(lambda: f"to go on: {going_on.again(resumes=False)}"), stack:
        operate.raise_arms(stack)
        flight.live(stack, out, at_start=True)
        flight.show((Level.WARN,))
        flight.refuse()
        stack.say(flight.value("execution", "inference"))
        stack.ask("policy")
        over = (
            "; open both leader grippers wide, then squeeze them to take over, `aloha handback` gives back"
            if takeover
            else ""
        )
        stack.say(f"{checkpoint} drives the followers{careful(rig)}; space is STOP, Ctrl-C ends and parks{over}")
        operate.watch_until_interrupted(stack, None, deploys=True)


def with_ensemble(rig: RigConfig, ensemble: str) -> RigConfig:
    """The rig whose policies are run with this ensemble mode, whatever they say; ConfigError for one that is none."""
    if ensemble not in MODES:
        raise ConfigError(f"--ensemble {ensemble} is none of {', '.join(MODES)}")
    kept = rig.policy.model_dump(exclude={"ensemble", "ensemble_m", "n_action_steps"})
    return rig.model_copy(update={"policy": PolicyConfig(**kept, ensemble=ensemble)})


def care_from(
    speed: float, max_duration_s: float | None, limits: Path | None, velocity: float | None, shadow: bool = False
) -> DeployConfig:
    """What the options of a command ask for; raises ConfigError naming the option."""
    tight = config.load_limits(limits) if limits is not None else TighterLimits()
    try:
        if velocity is not None:
            tight = tight.and_also(TighterLimits(velocity_rad_s=velocity))
        return DeployConfig(speed=speed, max_duration_s=max_duration_s, shadow=shadow, limits=tight)
    except ValidationError as error:
        (first, *_) = error.errors()
        option = "max-duration" if first["loc"][0] == "max_duration_s" else str(first["loc"][0]).partition("_")[0]
        raise ConfigError(f"--{option} {first['input']}: {first['msg']}") from None


def with_care(rig: RigConfig, care: DeployConfig) -> RigConfig:
    """The rig on which everything is at least as careful as `care`; ConfigError for a limit that is looser than its."""
    for role in ROLES:
        rig_limits(rig.limits, care, role)
    return rig.model_copy(update={"deploy": rig.deploy.and_also(care)})


def careful(rig: RigConfig) -> str:
    """How carefully, for people; empty where nothing is tightened."""
    deploy = rig.deploy
    found = [f"at {deploy.speed:g} times its speed"] if deploy.speed < 1 else []
    found += [f"for {deploy.max_duration_s:g} s"] if deploy.max_duration_s else []
    found += [f"{key} at most {value:g}" for key, value in deploy.limits.overrides().items()]
    return f" ({', '.join(found)})" if found else ""
