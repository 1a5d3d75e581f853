"""Sub-commands that measure."""

from pathlib import Path
from typing import Annotated

import typer

from aloha_runtime.cli.options import Json, Seconds

app = typer.Typer(no_args_is_help=True, help="Measure; every benchmark compares with a peer in the same run.")


@app.command("bus")
def bench_bus(seconds: Seconds = 10, json: Json = None) -> None:
    """Servo bus: own packet path against dynamixel-sdk, one and four arms."""
    from aloha_runtime.commands import bench, bench_bus

    bench.finish(bench_bus.run(seconds), json)


@app.command("transport")
def bench_transport(seconds: Seconds = 10, json: Json = None) -> None:
    """Frames: shared-memory rings against ZeroMQ with pixels inline."""
    from aloha_runtime.commands import bench, bench_transport

    bench.finish(bench_transport.run(seconds), json)


@app.command("stack")
def bench_stack(seconds: Seconds = 60, json: Json = None) -> None:
    """The full stack on the simulated rig: ticks, jitter, ages, latencies, CPU of every process."""
    from aloha_runtime.commands import bench, bench_stack

    bench.finish(bench_stack.run(seconds), json)


@app.command("kills")
def bench_kills(
    policy: Annotated[str, typer.Option("--policy", help="`demo` or a LeRobot policy directory")] = "demo",
    wall: Annotated[bool, typer.Option("--wall", help="in real time instead of virtual time")] = False,
    json: Json = None,
) -> None:
    """Every process of the simulated rig killed once while the arms move: what the arms did."""
    from aloha_runtime.commands import bench, bench_kills

    bench.finish(bench_kills.run(policy, "wall" if wall else "virtual"), json)


@app.command("jitter")
def bench_jitter(
    seconds: Seconds = 20,
    hogs: Annotated[int, typer.Option("--hogs", min=1, help="busy processes beside the loops")] = 4,
    json: Json = None,
) -> None:
    """How late the loops of arms and policy wake, with and without real-time priority, idle and on a busy machine."""
    from aloha_runtime.commands import bench_jitter

    bench_jitter.run(seconds, hogs, json)


@app.command("grip")
def bench_grip(
    docs: Annotated[Path | None, typer.Option("--docs", help="page that gets the table as a section")] = None,
    json: Json = None,
) -> None:
    """Grippers of both kits on objects of 0.1 to 30 mm: current and force, beside the original's loop."""
    from aloha_runtime.commands import bench, bench_grip

    bench.finish(bench_grip.run(docs), json)


@app.command("faults")
def bench_faults(
    only: Annotated[
        list[str] | None, typer.Option("--only", help="family, or part of a fault's name; repeatable")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", min=1, help="trials of each fault")] = None,
    soak: Annotated[bool, typer.Option("--soak", help="the long counts: 1000 kills of the policy, an hour")] = False,
    seed: Annotated[int, typer.Option("--seed", help="of instants and servos")] = 0,
    json: Json = None,
) -> None:
    """Everything that can fail, tried on emulated arms and judged on the wire; exit code 1 when a promise broke."""
    from aloha_runtime.commands import bench_faults

    if not bench_faults.run(only or (), count, soak, seed, json):
        raise typer.Exit(1)


@app.command("faithful")
def bench_faithful(
    curves: Annotated[Path | None, typer.Option("--curves", help="picture of the curves to write")] = None,
    json: Json = None,
) -> None:
    """Our motion beside the original ALOHA's control loop on the same simulated servos: tracking, loads, stops."""
    from aloha_runtime.commands import bench, bench_faithful

    rows = bench_faithful.run(curves)
    bench.finish(rows, json)
    if any(row.met is False for row in rows):
        raise typer.Exit(1)


@app.command("orders")
def bench_orders(
    depth: Annotated[int, typer.Option("--depth", min=1, help="rounds; each multiplies the time by about seven")] = 4,
    json: Json = None,
) -> None:
    """Every sequence of pauses, restarts, lost and late messages: does an arm move that nobody has asked to move?"""
    from aloha_runtime.commands import bench_orders

    if not bench_orders.run(depth, json):
        raise typer.Exit(1)


@app.command("peers")
def bench_peers(
    count: Annotated[int, typer.Option("--count", min=1, help="messages of each kind of peer")] = 10_000,
    json: Json = None,
) -> None:
    """Peers without a key, with an unknown one, and with what was said before: what a policy server accepts of them."""
    from aloha_runtime.commands import bench, bench_peers

    bench.finish(bench_peers.run(count), json)


@app.command("record")
def bench_record(seconds: Seconds = 60, json: Json = None) -> None:
    """Recording four cameras of 640x480 at 50 fps: frames, CPU, what the control loop feels, against LeRobot."""
    from aloha_runtime.commands import bench, bench_record

    bench.finish(bench_record.run(seconds), json)


@app.command("sessions")
def bench_sessions(
    episodes: Annotated[int, typer.Option("--episodes", min=1, help="recorded one after the other")] = 150,
    seconds: Annotated[float | None, typer.Option("--seconds", min=0.2, help="of each; default: all of it")] = None,
    json: Json = None,
) -> None:
    """A long recording session: memory and descriptors of every process as episodes go by."""
    from aloha_runtime.commands import bench, bench_sessions

    bench.finish(bench_sessions.run(episodes, seconds), json)


@app.command("recorder-kills")
def bench_recorder_kills(
    count: Annotated[int, typer.Option("--count", min=1, help="how often")] = 500,
    processes: Annotated[int, typer.Option("--processes", min=1, help="... and the whole process so often")] = 20,
    json: Json = None,
) -> None:
    """Recording killed at random instants: what was lost, and how often the rest could be opened."""
    from aloha_runtime.commands import bench, bench_recorder_kills

    bench.finish([*bench_recorder_kills.run(count), *bench_recorder_kills.run_process(processes)], json)


@app.command("train")
def bench_train(json: Json = None) -> None:
    """Training: samples a second of the loader against direct decoding and against LeRobot."""
    from aloha_runtime.commands import bench, bench_train, bench_train_step

    bench.finish([*bench_train_step.step_rows(), *bench_train.loader_rows()], json)


@app.command("inference")
def bench_inference(
    seconds: Seconds = 15,
    threads: Annotated[int, typer.Option("--threads", min=1, help="1 on a busy machine")] = 2,
    json: Json = None,
) -> None:
    """Policy on a CPU: every engine against eager and against LeRobot, three sizes of observations."""
    from aloha_runtime.commands import bench, bench_inference

    bench.finish(bench_inference.run(seconds, threads), json)


@app.command("fuzz")
def bench_fuzz(
    actions: Annotated[int, typer.Option("--actions", min=0, help="in one process; 10000000 take an hour")] = 100_000,
    terminal: Annotated[int, typer.Option("--terminal", min=0, help="through driver and emulated servos")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of the first run of 1000 actions")] = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="processes")] = 2,
    json: Json = None,
) -> None:
    """Random actions, broken ones included, through the gate: goals outside the envelope, as read on the wire.

    With --json the figures are on disk as they grow; a run that was cut off goes on with --seed.
    """
    from aloha_runtime.commands import bench, bench_fuzz

    bench.finish(bench_fuzz.both(actions, terminal, seed, workers, json), json)


@app.command("delay")
def bench_delay(json: Json = None) -> None:
    """How late goals are behind a person's leaders and behind a policy's tick, side by side, in virtual time."""
    from aloha_runtime.commands import bench, bench_delay

    bench.finish(bench_delay.run(), json)


@app.command("all")
def bench_all(seconds: Seconds = 10, json: Json = None) -> None:
    """Every benchmark after the other."""
    from aloha_runtime.commands import (
        bench,
        bench_bus,
        bench_inference,
        bench_kills,
        bench_record,
        bench_stack,
        bench_train,
        bench_train_step,
        bench_transport,
    )

    rows = [*bench_bus.run(seconds), *bench_transport.run(seconds), *bench_stack.run(seconds), *bench_kills.run()]
    rows += bench_record.run(seconds)
    rows += [*bench_inference.run(seconds, threads=2), *bench_train_step.step_rows(), *bench_train.loader_rows()]
    bench.finish(rows, json)
