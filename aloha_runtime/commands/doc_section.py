"""One measured section of a page of the docs, written by the command that measured it."""

from pathlib import Path


def write_section(page: Path, title: str, heading: str, text: str) -> None:
    """Put `text` under `## heading` into a Markdown page, in place of what stood there; other sections stay as they
    are. A page that is not there begins with `# title`."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.exists() else [f"# {title}", ""]
    section = [f"## {heading}", "", *text.strip().splitlines(), ""]
    if f"## {heading}" in lines:
        start = lines.index(f"## {heading}")
        end = next((at for at in range(start + 1, len(lines)) if lines[at].startswith("## ")), len(lines))
        lines[start:end] = section
    else:
        lines += section if not lines or not lines[-1] else ["", *section]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
