"""`curves.png` of a training run: parts of the loss, validation, learning rate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aloha_runtime.act.metrics import FILE, VALIDATION, read_metrics

Row = dict[str, float]
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")


def draw_curves(output_dir: Path) -> Path | None:
    """Draw what `metrics.jsonl` holds so far; None when there is nothing to draw yet."""
    import matplotlib as mpl

    mpl.use("Agg", force=False)
    from matplotlib.figure import Figure

    rows = read_metrics(output_dir / FILE)
    trained, validated = ([row for row in rows if key(row)] for key in (_is_training, _is_validation))
    if not trained:
        return None
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    losses, errors, rates = figure.subplots(1, 3)
    _curves(losses, trained, [name for name in trained[-1] if name.endswith("loss")], "loss in training")
    _curves(errors, validated, [name for name in (validated or [{}])[-1] if name != "step"], "validation error")
    _curves(rates, trained, ["lr"], "learning rate")
    path = output_dir / "curves.png"
    aside = path.with_name(".curves.png")
    figure.savefig(aside, dpi=100, format="png")
    aside.replace(path)
    return path


def _is_training(row: Row) -> bool:
    return "loss" in row


def _is_validation(row: Row) -> bool:
    return any(name.startswith(VALIDATION) for name in row)


def _curves(axes: Any, rows: Sequence[Row], names: Sequence[str], title: str) -> None:
    """One panel: a line per figure over the steps, on a logarithmic scale where all are above zero."""
    values = {name: [(row["step"], row[name]) for row in rows if name in row] for name in names}
    for (name, points), colour in zip(values.items(), _COLOURS, strict=False):
        label = name.removeprefix(VALIDATION).removesuffix("_loss")
        marker = "o" if len(points) < 3 else None
        axes.plot(*zip(*points, strict=True), label=label, color=colour, linewidth=1.2, marker=marker)
    everything = [value for points in values.values() for _, value in points]
    if everything and min(everything) > 0:
        axes.set_yscale("log")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("step", fontsize=9)
    axes.grid(visible=True, which="both", linewidth=0.3)
    if len(values) > 1:
        axes.legend(fontsize=8)
    if not everything:
        axes.text(0.5, 0.5, "none yet", ha="center", transform=axes.transAxes)
