"""Sub-commands for a rig's configuration and its servos."""

from pathlib import Path
from typing import Annotated

import typer

from aloha_runtime.cli.options import Baud, Port

app = typer.Typer()
config_app = typer.Typer(no_args_is_help=True, help="Show or check a rig configuration.")
servo_app = typer.Typer(no_args_is_help=True, help="Look at and correct servos on a port that nobody uses.")
app.add_typer(config_app, name="config")
app.add_typer(servo_app, name="servo")


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
