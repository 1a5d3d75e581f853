"""The `aloha` command: sub-commands only; every job's code is in `commands/`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from aloha_runtime.errors import AlohaError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
config_app = typer.Typer(no_args_is_help=True, help="Show or check a rig configuration.")
bench_app = typer.Typer(no_args_is_help=True, help="Measure; every benchmark compares with a peer in the same run.")
servo_app = typer.Typer(no_args_is_help=True, help="Look at and correct servos on a port that nobody uses.")
app.add_typer(config_app, name="config")
app.add_typer(servo_app, name="servo")
app.add_typer(bench_app, name="bench")

Rig = Annotated[str, typer.Option("--rig", help="shipped rig (sim, aloha, aloha2) or a .yaml file")]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="sockets and locks; default: $XDG_RUNTIME_DIR/aloha")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="seed of the simulated task; default: drawn anew")]
Task = Annotated[str | None, typer.Option("--task", help="simulated task: transfer_cube or insertion")]
Port = Annotated[str, typer.Argument(help="serial port, such as /dev/ttyDXL_follower_left")]
Baud = Annotated[int, typer.Option("--baud", help="baud rate of the servos")]
Json = Annotated[Path | None, typer.Option("--json", help="also write the rows to this file")]
Seconds = Annotated[float, typer.Option("--seconds", min=1, help="length of each measurement")]


@app.command()
def demo(
    seed: Seed = None,
    policy: Annotated[str, typer.Option("--policy", help="`demo` or a LeRobot policy directory")] = "demo",
    out: Annotated[Path, typer.Option("--out", help="folder of the report")] = Path("outputs/demo"),
    run_dir: RunDir = None,
) -> None:
    """The whole runtime on the simulated rig: a policy transfers a cube; ends with a report."""
    from aloha_runtime.commands.demo import demo as job

    job(seed=seed, policy=policy, out=out, run_dir=run_dir)


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
    run_dir: RunDir = None,
) -> None:
    """Leaders move followers: arms to the start pose, squeeze both leader grippers, go. Ctrl-C ends and parks."""
    from aloha_runtime.commands import operate

    operate.teleop(rig, scripted=scripted, seed=seed, task=task, seconds=seconds, run_dir=run_dir)


@app.command()
def deploy(
    checkpoint: Annotated[str, typer.Argument(help="LeRobot policy directory, or `demo`")],
    rig: Rig = "sim",
    seed: Seed = None,
    task: Task = None,
    seconds: Annotated[float | None, typer.Option("--seconds", min=1, help="stop after so long")] = None,
    run_dir: RunDir = None,
) -> None:
    """Run a policy on the followers: arms to the start pose, then the policy until Ctrl-C, which stops and parks."""
    from aloha_runtime.commands import operate

    operate.deploy(rig, checkpoint, seed=seed, task=task, seconds=seconds, run_dir=run_dir)


@app.command()
def status(
    run_dir: RunDir = None, once: Annotated[bool, typer.Option("--once", help="print one table and end")] = False
) -> None:
    """Live table of the running system: mode, rates, ages, jitter, temperatures. Ctrl-C ends the table only."""
    from aloha_runtime.commands.status import status as job

    job(run_dir, once)


@app.command()
def stop(run_dir: RunDir = None) -> None:
    """STOP: freeze the arms where they are, torque on."""
    _ask("stop", run_dir)


@app.command()
def arm(run_dir: RunDir = None) -> None:
    """Torque on and a slow ramp to the start pose; after HOLD: ready to go on from where the arms are."""
    _ask("arm", run_dir)


@app.command()
def park(run_dir: RunDir = None) -> None:
    """A slow ramp to the sleep pose, then torque off."""
    _ask("park", run_dir)


@app.command()
def down(run_dir: RunDir = None) -> None:
    """Park the arms and end every process of the running system, wherever it was started."""
    from aloha_runtime.commands import operate

    operate.down(run_dir)


def _ask(verb: str, run_dir: Path | None) -> None:
    from aloha_runtime.commands import operate

    operate.ask(verb, run_dir)


@app.command()
def demonstrate(
    out: Annotated[Path, typer.Option("--out", help="dataset folder to create")],
    task: Annotated[Literal["transfer_cube", "insertion"], typer.Option("--task")] = "transfer_cube",
    episodes: Annotated[int, typer.Option("--episodes", min=1)] = 50,
    first_seed: Annotated[int, typer.Option("--first-seed", min=0)] = 100_000,
    workers: Annotated[int, typer.Option("--workers", min=1)] = 2,
) -> None:
    """Scripted demonstrations through teleoperation on the simulated rig, in virtual time, as a LeRobot v3 dataset."""
    from aloha_runtime.commands.demonstrate import demonstrate as job

    job(task=task, episodes=episodes, first_seed=first_seed, out=out, workers=workers)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    context: typer.Context,
    dataset: Annotated[Path, typer.Option("--dataset", help="LeRobot v3 dataset folder")],
    output_dir: Annotated[Path, typer.Option("--output-dir", help="checkpoints go here")],
    config: Annotated[Path | None, typer.Option("--config", help="YAML file of training settings")] = None,
) -> None:
    """Train ACT. Further options are fields of the training and of the policy: --steps 5000 --policy.chunk-size 50."""
    from aloha_runtime.commands.train import train as job

    job(dataset, output_dir, config, context.args)


@app.command("eval")
def evaluate(
    policy: Annotated[str, typer.Option("--policy", help="policy directory, `demo`, or `scripted`")] = "demo",
    task: Annotated[Literal["transfer_cube", "insertion"], typer.Option("--task")] = "transfer_cube",
    episodes: Annotated[int, typer.Option("--episodes", min=1)] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="first seed")] = 0,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="default: one a core")] = None,
    json: Json = None,
) -> None:
    """Success of a policy over many seeds of the simulated rig, in virtual time."""
    from aloha_runtime.commands import evaluate as job

    job.evaluate(policy, task, episodes, seed, workers or job.default_workers(), json)


@app.command()
def response(
    out: Annotated[Path, typer.Option("--out", help="SVG picture to write")] = Path("outputs/step_response.svg"),
) -> None:
    """Step responses of the simulated servos, as figures and a picture."""
    from aloha_runtime.commands.response import response as job

    job(out)


@config_app.command("show")
def config_show(rig: Annotated[str, typer.Argument(help="shipped rig or .yaml file")] = "sim") -> None:
    """Print a rig with every default filled in."""
    from aloha_runtime.commands import rig as job

    job.show(rig)


@config_app.command("check")
def config_check(rig: Annotated[str, typer.Argument(help="shipped rig or .yaml file")] = "sim") -> None:
    """Check a rig file; every mistake with file, line, key and value."""
    from aloha_runtime.commands import rig as job

    job.check(rig)


@servo_app.command("scan")
def servo_scan(port: Port) -> None:
    """Every servo on a port, at every baud rate: id, model, firmware."""
    from aloha_runtime.commands import servo

    servo.scan(port)


@servo_app.command("write")
def servo_write(port: Port, servo_id: int, register: str, value: int, baud: Baud = 1_000_000) -> None:
    """Set one EEPROM register, such as Return_Delay_Time, and read it back."""
    from aloha_runtime.commands import servo

    servo.write(port, servo_id, register, value, baud)


@servo_app.command("release")
def servo_release(port: Port, baud: Baud = 1_000_000) -> None:
    """Switch off torque of a whole arm. It falls unless somebody holds it, so this asks first."""
    from aloha_runtime.commands import servo

    typer.confirm("The arm will fall unless it is supported. Is somebody holding it?", abort=True)
    typer.echo(f"no torque now: servos {servo.release(port, baud)}")


@bench_app.command("bus")
def bench_bus(seconds: Seconds = 10, json: Json = None) -> None:
    """Servo bus: own packet path against dynamixel-sdk, one and four arms."""
    from aloha_runtime.commands import bench, bench_bus

    bench.finish(bench_bus.run(seconds), json)


@bench_app.command("transport")
def bench_transport(seconds: Seconds = 10, json: Json = None) -> None:
    """Frames: shared-memory rings against ZeroMQ with pixels inline."""
    from aloha_runtime.commands import bench, bench_transport

    bench.finish(bench_transport.run(seconds), json)


@bench_app.command("stack")
def bench_stack(seconds: Seconds = 60, json: Json = None) -> None:
    """The full stack on the simulated rig: ticks, jitter, ages, latencies, CPU of every process."""
    from aloha_runtime.commands import bench, bench_stack

    bench.finish(bench_stack.run(seconds), json)


@bench_app.command("kills")
def bench_kills(
    policy: Annotated[str, typer.Option("--policy", help="`demo` or a LeRobot policy directory")] = "demo",
    wall: Annotated[bool, typer.Option("--wall", help="in real time instead of virtual time")] = False,
    json: Json = None,
) -> None:
    """Every process of the simulated rig killed once while the arms move: what the arms did."""
    from aloha_runtime.commands import bench, bench_kills

    bench.finish(bench_kills.run(policy, "wall" if wall else "virtual"), json)


@bench_app.command("all")
def bench_all(seconds: Seconds = 10, json: Json = None) -> None:
    """Every benchmark after the other."""
    from aloha_runtime.commands import bench, bench_bus, bench_stack, bench_transport

    bench.finish([*bench_bus.run(seconds), *bench_transport.run(seconds), *bench_stack.run(seconds)], json)


def main() -> None:
    """Entry point: an AlohaError is one message and its exit code; Ctrl-C is 130."""
    try:
        app()
    except AlohaError as error:
        print(f"aloha: {error}", file=sys.stderr)  # noqa: T201 — the one place that speaks to the terminal for all commands
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
