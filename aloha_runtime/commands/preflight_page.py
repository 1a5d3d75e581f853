"""The page of a preflight: what each camera shows now beside what it showed in training, and every finding."""

import base64
import html
from collections.abc import Mapping, Sequence

import cv2

from aloha_runtime.commands.findings import Finding
from aloha_runtime.commands.snapshots import Image

WIDTH = 320
"""Pixels of a picture on the page."""
_STYLE = """body { margin: 24px; font: 15px/1.5 system-ui, sans-serif; color: #111827; background: #f6f7f9 }
table { border-collapse: collapse } td { padding: 4px 10px 4px 0; vertical-align: top }
figure { display: inline-block; margin: 0 12px 12px 0 } figcaption { color: #6b7280 }
.live img { outline: 3px solid #2563eb } .ok { color: #059669 } .warn { color: #b45309 } .fail { color: #dc2626 }"""


def page(
    checkpoint: str,
    rig: str,
    found: Sequence[Finding],
    live: Mapping[str, Image],
    frames: Mapping[str, Sequence[Image]],
) -> str:
    """One file that opens from disk. `live` and `frames` (of the training) by camera of the rig."""
    title = html.escape(f"{checkpoint} on rig {rig}")
    cameras = "".join(_camera(name, picture, frames.get(name, ())) for name, picture in sorted(live.items()))
    rows = "".join(
        f'<tr><td class="{finding.level}">{finding.level}</td><td><b>{html.escape(finding.check)}</b></td>'
        f"<td>{html.escape(finding.value)}<br>{html.escape(finding.fix)}</td></tr>"
        for finding in found
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>Same place, same angle, same light? Framed: what the camera shows now. Beside it: first "
        f"frames of training episodes.</p>{cameras}<h2>Findings</h2><table>{rows}</table></html>\n"
    )


def _camera(name: str, live: Image, frames: Sequence[Image]) -> str:
    pictures = [_figure(live, "now", "live")]
    pictures += [_figure(frame, f"training {number + 1}", "then") for number, frame in enumerate(frames)]
    none = "" if frames else "<p>The checkpoint has no training frames of this camera.</p>"
    return f"<h2>{html.escape(name)}</h2>{none}{''.join(pictures)}"


def _figure(picture: Image, caption: str, kind: str) -> str:
    height = max(1, round(WIDTH * picture.shape[0] / picture.shape[1]))
    small = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), (WIDTH, height), interpolation=cv2.INTER_AREA)
    data = base64.b64encode(cv2.imencode(".jpg", small)[1].tobytes()).decode()
    source = f"data:image/jpeg;base64,{data}"
    return f'<figure class="{kind}"><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
