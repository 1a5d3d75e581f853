"""`aloha convert checkpoint`: a policy of the original ACT code becomes a LeRobot policy directory."""

from pathlib import Path

from rich.console import Console

from aloha_runtime.act import original, provenance
from aloha_runtime.act.header import CONFIG
from aloha_runtime.errors import CheckpointError


def checkpoint(
    source: Path, out: Path, stats: Path, cameras: str, n_heads: int, height: int, width: int, *, force: bool
) -> None:
    """Convert `source` with the statistics in `stats`; `cameras` are names by commas, in the order of training."""
    names = [name.strip() for name in cameras.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise CheckpointError(f"--cameras {cameras!r}: give each camera once, by commas: cam_high,cam_low")
    if (out / CONFIG).exists() and not force:
        raise CheckpointError(f"{out} already holds a policy; choose another folder, or --force to replace it")
    converted = original.convert(source, stats, names, n_heads=n_heads, image_size=(height, width))
    policy, config = converted.policy, converted.policy.config
    policy.save_pretrained(
        out, source={"kind": "original ACT", "checkpoint": provenance.file(source), "stats": provenance.file(stats)}
    )
    console = Console(soft_wrap=True)
    size = sum(parameter.numel() for parameter in policy.parameters()) / 1e6
    console.print(
        f"{out}: {config.vision_backbone}, {size:.1f} M parameters, chunks of {config.chunk_size} actions, "
        f"{width}x{height} images of {', '.join(names)}"
    )
    for note in converted.notes:
        console.print(f"- {note}")
    console.print(
        f"- {config.n_heads} heads were taken as given: the checkpoint does not say how many it has (--n-heads)"
    )
