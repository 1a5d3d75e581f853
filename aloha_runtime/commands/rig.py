"""`aloha config`: show a rig with its defaults, or check a file."""

import yaml
from rich.console import Console
from rich.syntax import Syntax

from aloha_runtime import config


def show(name: str) -> None:
    """Print the whole configuration as YAML that could be saved as a rig file."""
    text = yaml.safe_dump(config.load(name).model_dump(mode="json"), sort_keys=False)
    console = Console()
    console.print(Syntax(text, "yaml", background_color="default") if console.is_terminal else text, soft_wrap=True)


def check(name: str) -> None:
    """Say that a rig file is right, and which of its values ought to be newer; raises ConfigError otherwise."""
    rig = config.load(name)
    for advice in config.advice(name, rig):
        Console(stderr=True).print(advice, soft_wrap=True, markup=False)
    kind = f"simulated, task {rig.sim.task}" if rig.sim else "real"
    Console().print(
        f"{config.find(name)}: ok: {kind}, kit {rig.kit}, {len(rig.arms)} arms, cameras {', '.join(rig.cameras)}"
    )
