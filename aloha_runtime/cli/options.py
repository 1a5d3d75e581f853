"""Options that several sub-commands share."""

from pathlib import Path
from typing import Annotated

import typer

Rig = Annotated[str, typer.Option("--rig", help="shipped rig (sim, aloha, aloha2) or a .yaml file")]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="sockets and locks; default: $XDG_RUNTIME_DIR/aloha")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="seed of the simulated task; default: a random one")]
Task = Annotated[str | None, typer.Option("--task", help="simulated task: transfer_cube or insertion")]
Port = Annotated[str, typer.Argument(help="serial port, such as /dev/ttyDXL_follower_left")]
Baud = Annotated[int, typer.Option("--baud", help="baud rate of the servos")]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine", help="eager, onnx-fp32, onnx-int8, ... or auto, the fastest; default: rig's policy.engine"
    ),
]
Json = Annotated[Path | None, typer.Option("--json", help="also write the rows to this file")]
Seconds = Annotated[float, typer.Option("--seconds", min=1, help="length of each measurement")]
