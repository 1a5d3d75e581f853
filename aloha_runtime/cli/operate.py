"""Sub-commands that start, watch and stop the running system."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aloha_runtime.cli.options import Engine, Rig, RunDir, Seed, Task

app = typer.Typer()

Takeover = Annotated[
    bool, typer.Option("--takeover", help="leaders follow the policy; squeeze both grippers to take over")
]

Accept = Annotated[
    list[str] | None, typer.Option("--accept", help="a warning of the preflight that you have judged, by name")
]


@app.command()
def demo(
    seed: Seed = None,
    policy: Annotated[str, typer.Option("--policy", help="`demo` or a LeRobot policy directory")] = "demo",
    out: Annotated[Path, typer.Option("--out", help="folder of the report")] = Path("outputs/demo"),
    rig: Rig = "sim",
    run_dir: RunDir = None,
) -> None:
    """The whole runtime on a simulated rig: a policy transfers a cube; ends with a report."""
    from aloha_runtime.commands.demo import demo as job

    job(seed=seed, policy=policy, out=out, run_dir=run_dir, rig_name=rig)


@app.command()
def up(
    rig: Rig = "sim",
    job: Annotated[str, typer.Option("--job", help="teleop, deploy or demonstrate")] = "teleop",
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="policy of a deploy job")] = "demo",
    run_dir: RunDir = None,
) -> None:
    """Start every process of a job; `aloha arm`, `status`, `stop` work on them. Ctrl-C parks the arms and ends all."""
    from aloha_runtime.commands import operate

    operate.up(rig, job, checkpoint, run_dir)


@app.command()
def teleop(
    rig: Rig = "sim",
    scripted: Annotated[bool, typer.Option("--scripted", help="simulated rig: a script moves the leaders")] = False,
    seed: Seed = None,
    task: Task = None,
    seconds: Annotated[float | None, typer.Option("--seconds", min=1, help="stop after so long")] = None,
    side: Annotated[
        Literal["left", "right"] | None, typer.Option("--side", help="one side only; the other stands still")
    ] = None,
    run_dir: RunDir = None,
) -> None:
    """Leaders move followers: arms to the start pose, squeeze both leader grippers, go. Ctrl-C ends and parks."""
    from aloha_runtime.commands import operate

    operate.teleop(rig, scripted=scripted, seed=seed, task=task, seconds=seconds, run_dir=run_dir, side=side)


@app.command()
def record(
    dataset: Annotated[Path, typer.Option("--dataset", help="LeRobot v3 dataset folder, new or (--resume) there")],
    task: Annotated[str, typer.Option("--task", help="what the episodes show, in a few words")],
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="how many to record now")] = 50,
    rig: Rig = "sim",
    resume: Annotated[bool, typer.Option("--resume", help="continue a dataset of this very rig")] = False,
    scripted: Annotated[bool, typer.Option("--scripted", help="simulated rig: a script moves the leaders")] = False,
    policy: Annotated[str, typer.Option("--policy", help="record a policy instead of a person")] = "",
    takeover: Takeover = False,
    continuous: Annotated[
        Literal["", "save", "keep"],
        typer.Option("--continuous", help="save: all motion; keep: only the last seconds before each `keep`"),
    ] = "",
    sim_task: Annotated[str | None, typer.Option("--sim-task", help="transfer_cube or insertion")] = None,
    seed: Seed = None,
    run_dir: RunDir = None,
) -> None:
    """Record demonstrations with both hands on the leaders; every finished episode is on disk before the next."""
    from aloha_runtime.commands.record import Wishes
    from aloha_runtime.commands.record import record as job

    wishes = Wishes(dataset, task, episodes, scripted, seed, resume, continuous, policy, takeover)
    job(wishes, rig, sim_task, run_dir)


@app.command()
def deploy(
    checkpoint: Annotated[
        str, typer.Argument(help="LeRobot policy directory, `demo`, or tcp://HOST:PORT of `aloha policy serve`")
    ],
    rig: Rig = "sim",
    seed: Seed = None,
    task: Task = None,
    engine: Engine = None,
    ensemble: Annotated[
        str | None, typer.Option("--ensemble", help="off, paper or newest instead of what the checkpoint says")
    ] = None,
    speed: Annotated[float, typer.Option("--speed", help="0.1 to 1: the same motion, slower")] = 1.0,
    max_duration: Annotated[
        float | None, typer.Option("--max-duration", "--seconds", help="HOLD after so many seconds, then park")
    ] = None,
    limits: Annotated[
        Path | None, typer.Option("--limits", help=".yaml of limits below the rig's (keys of deploy.limits)")
    ] = None,
    velocity: Annotated[float | None, typer.Option("--velocity", help="rad/s that no joint exceeds")] = None,
    takeover: Takeover = False,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="only say what the policy would do; the arms do not move")
    ] = False,
    teleop: Annotated[bool, typer.Option("--teleop", help="... while a person moves them with the leaders")] = False,
    scripted: Annotated[bool, typer.Option("--scripted", help="... while a script does (simulated rig)")] = False,
    out: Annotated[Path, typer.Option("--out", help="folder of pages, figures and pictures")] = Path("outputs/deploy"),
    accept: Accept = None,
    run_dir: RunDir = None,
) -> None:
    """Run a policy on the followers: arms to the start pose, then the policy until Ctrl-C, which stops and parks."""
    from aloha_runtime.commands.deploy import care_from
    from aloha_runtime.commands.deploy import deploy as job

    job(
        rig,
        checkpoint,
        seed=seed,
        task=task,
        run_dir=run_dir,
        care=care_from(speed, max_duration, limits, velocity, shadow),
        engine=engine,
        ensemble=ensemble,
        takeover=takeover,
        teleoperated=teleop,
        scripted=scripted,
        out=out,
        accepted=accept or [],
    )


@app.command()
def score(
    policies: Annotated[list[str], typer.Argument(help="LeRobot policy directories, or shipped ones such as `demo`")],
    task: Annotated[str, typer.Option("--task", help="what the policies are to do, in a few words")],
    out: Annotated[Path, typer.Option("--out", help="folder of the trials, new or (--resume) there")],
    scenes: Annotated[int, typer.Option("--scenes", min=1, help="scenes; every policy meets each once")] = 20,
    rig: Rig = "sim",
    longest: Annotated[float, typer.Option("--longest", min=1, help="seconds after which a trial has failed")] = 60.0,
    resume: Annotated[bool, typer.Option("--resume", help="go on where it was left")] = False,
    scripted: Annotated[bool, typer.Option("--scripted", help="simulated rig: the world judges")] = False,
    run_dir: RunDir = None,
) -> None:
    """Which policy is better on this rig: trials in random order, judged by you without knowing which one it is."""
    from aloha_runtime.commands.score import Wishes
    from aloha_runtime.commands.score import score as job

    job(Wishes(tuple(policies), scenes, task, out, longest, resume, scripted), rig, run_dir)


@app.command()
def preflight(
    checkpoint: Annotated[str, typer.Argument(help="LeRobot policy directory, or `demo`")],
    rig: Rig = "sim",
    accept: Accept = None,
    out: Annotated[Path, typer.Option("--out", help="folder of the page")] = Path("outputs/preflight"),
    json: Annotated[Path | None, typer.Option("--json", help="also write the findings to this file")] = None,
    run_dir: RunDir = None,
) -> None:
    """Does this policy fit this rig as it is now? Cameras beside training frames, units, calibration. Nothing moves."""
    from aloha_runtime.commands.preflight import preflight as job

    job(checkpoint, rig, accept or [], out, json, run_dir)


@app.command()
def replay(
    dataset: Annotated[Path, typer.Argument(help="LeRobot v3 dataset folder")],
    episode: Annotated[int, typer.Argument(min=0, help="index of the episode")],
    rig: Rig = "sim",
    out: Annotated[Path, typer.Option("--out", help="folder of the picture and the figures")] = Path("outputs/replay"),
    seed: Seed = None,
    task: Task = None,
    run_dir: RunDir = None,
) -> None:
    """A recorded episode on the arms again: slowly to its first action, then at its own pace; ends with a picture."""
    from aloha_runtime.commands.replay import replay as job

    job(dataset, episode, rig, out, seed, task, run_dir)


@app.command()
def status(
    run_dir: RunDir = None, once: Annotated[bool, typer.Option("--once", help="print one table and end")] = False
) -> None:
    """Live table of the running system: mode, rates, ages, jitter, temperatures. Ctrl-C ends the table only."""
    from aloha_runtime.commands.status import status as job

    job(run_dir, once)


Driver = Annotated[
    Literal["policy", "teleop", "replay"],
    typer.Argument(help="policy, teleop (a squeeze of both leader grippers does it, too) or replay"),
]


@app.command()
def stop(run_dir: RunDir = None) -> None:
    """STOP: freeze the arms where they are, torque on."""
    _ask("stop", run_dir)


@app.command()
def arm(run_dir: RunDir = None) -> None:
    """Torque on and a slow ramp to the start pose; after HOLD: ready to go on from where the arms are."""
    _ask("arm", run_dir)


@app.command()
def start(
    driver: Driver = "policy",
    accept: Accept = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder of the preflight's page")] = None,
    run_dir: RunDir = None,
) -> None:
    """Begin to move the armed arms: by the policy (after its preflight), the leaders or a recorded episode."""
    if driver != "policy":
        _ask(driver, run_dir)
        return
    from aloha_runtime.commands.start import start_policy

    start_policy(run_dir, accept or [], out)


@app.command()
def park(run_dir: RunDir = None) -> None:
    """A slow ramp to the sleep pose, then torque off."""
    _ask("park", run_dir)


@app.command("reset-gripper")
def reset_gripper(
    arm: Annotated[str, typer.Argument(help="the arm, such as follower_left")], run_dir: RunDir = None
) -> None:
    """A gripper in overload or overheated: restart its servo. It lets go for a moment; the arm keeps its torque."""
    _ask("reset_gripper", run_dir, arm)


@app.command()
def takeover(run_dir: RunDir = None) -> None:
    """A person moves the arms instead of the policy, from where they are (so does a squeeze of both grippers)."""
    _ask("takeover", run_dir)


@app.command()
def handback(run_dir: RunDir = None) -> None:
    """The policy moves the arms again after a person had taken over."""
    _ask("handback", run_dir)


@app.command()
def down(run_dir: RunDir = None) -> None:
    """Park the arms and end every process of the running system, wherever it was started."""
    from aloha_runtime.commands import operate

    operate.down(run_dir)


def _ask(verb: str, run_dir: Path | None, argument: str = "") -> None:
    from aloha_runtime.commands import operate

    operate.ask(verb, run_dir, argument)
