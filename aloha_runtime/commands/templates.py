"""Pages that open from disk: a template beside the commands, filled in."""

from importlib.resources import files
from string import Template


def fill(name: str, **values: object) -> str:
    """The page of a template with `values` in their places; `$style` is what all pages look like."""
    folder = files("aloha_runtime.commands")
    style = (folder / "page_style.css").read_text(encoding="utf-8")
    return Template((folder / name).read_text(encoding="utf-8")).substitute(style=style, **values)
