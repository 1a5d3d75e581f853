"""`aloha dataset view`: episodes as a folder to open in a browser, every camera in step with the joints' curves."""

import html
import json
import shutil
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

import aloha_runtime
from aloha_runtime.commands import made_folder
from aloha_runtime.data import reports
from aloha_runtime.data.layout import IMAGE_PREFIX
from aloha_runtime.data.quality import line
from aloha_runtime.data.reader import Dataset, Episode, VideoSpan
from aloha_runtime.data.recorded import FLAGS, INTERVENTION
from aloha_runtime.data.recording import ACTION, STATE
from aloha_runtime.data.selection import select
from aloha_runtime.data.summary import rig_name
from aloha_runtime.data.units import flat_names
from aloha_runtime.data.video_cut import cut, encode, packets
from aloha_runtime.data.video_encoder import CODECS
from aloha_runtime.errors import DatasetError

DIGITS = 4
"""Of the numbers in the page: 0.1 mrad is less than an encoder tick (1.5 mrad)."""


def view(path: Path, words: Sequence[str], out: Path, advance: Callable[[int], None] = lambda _: None) -> Path:
    """Write the folder; returns the page to open. Raises DatasetError for a bad index or a damaged video."""
    dataset = Dataset(path)
    chosen = [dataset.episodes[index] for index in select(words, len(dataset.episodes))]
    if (strange := made_folder.foreign(out)) is not None:
        raise DatasetError(
            f"{out} holds other files ({strange.name}), which a page would replace; choose another --out"
        )
    made_folder.empty(out)
    for folder in ("episodes", "videos"):
        (out / folder).mkdir(parents=True)
    for episode in chosen:
        for camera, span in episode.videos.items():
            playable(dataset, episode, span, out / "videos" / _video_name(episode, camera))
        content = json.dumps(_curves(dataset, episode), separators=(",", ":"))
        (out / "episodes" / f"{episode.index}.js").write_text(f"show({content})\n")
        advance(1)
    page = out / "index.html"
    page.write_text(_page(dataset, chosen))
    made_folder.sign(out)
    return page


def _video_name(episode: Episode, camera: str) -> str:
    return f"{episode.index}_{camera}.mp4"


def playable(dataset: Dataset, episode: Episode, span: VideoSpan, target: Path) -> None:
    """H.264 of just this episode: the file itself where it is that, else a part of it, else encoded again."""
    feature = dataset.features.get(IMAGE_PREFIX + target.stem.split("_", 1)[1])
    info = (feature.info if feature else None) or {}
    first, codec = round(span.from_s * dataset.fps), CODECS["h264"]
    if (info.get("video.codec"), info.get("video.pix_fmt")) != (codec.name, codec.pix_fmt):
        encode(span.path, target, range(first, first + episode.length), dataset.fps, codec, dataset.info.rate)
    elif first == 0 and packets(span.path, dataset.fps).frames == episode.length:
        shutil.copy(span.path, target)  # no second name: a page may be written over, a recording must not
    else:
        cut(span.path, target, first, episode.length, dataset.fps, codec)


def _curves(dataset: Dataset, episode: Episode) -> dict[str, Any]:
    """What the page draws of an episode: numbers by joint, flagged spans, videos by camera."""
    span = slice(episode.from_index, episode.to_index)
    vectors = {key: dataset.vectors(key)[span] for key in (STATE, ACTION, "goal") if key in dataset.info.vectors}
    named = STATE if STATE in vectors else ACTION
    names = flat_names(dataset.features[named].names) if named in vectors else []
    flags = {key: dataset.vectors(key)[span] for key in (FLAGS, INTERVENTION) if key in dataset.info.vectors}
    return {
        "index": episode.index,
        "fps": dataset.fps,
        "frames": episode.length,
        "joints": names or [f"number {index}" for index in range(next(iter(vectors.values())).shape[1])],
        "curves": {key: np.round(values.T.astype(float), DIGITS).tolist() for key, values in vectors.items()},
        "flags": {
            name: np.flatnonzero(column).tolist()
            for key, values in flags.items()
            for name, column in zip(flat_names(dataset.features[key].names) or [key], values.T, strict=True)
            if column.any()
        },
        "videos": {camera: f"videos/{_video_name(episode, camera)}" for camera in episode.videos},
        "note": _note(dataset, episode),
    }


def _note(dataset: Dataset, episode: Episode) -> str:
    """The quality line of a recorded episode, and how it ended."""
    report = reports.read(dataset.path, episode.index)
    try:
        quality = line(report)
    except (KeyError, TypeError):  # another program's episode, or one that was recovered
        quality = ""
    return "; ".join(part for part in (report.get("ended", ""), quality) if part)


def _page(dataset: Dataset, chosen: Sequence[Episode]) -> str:
    template = Template((files("aloha_runtime.commands") / "dataset_view_template.html").read_text(encoding="utf-8"))
    seconds = len(dataset) / dataset.fps
    rig = rig_name(dataset.path)
    facts = {
        "episodes": str(len(dataset.episodes)),
        "length": f"{seconds / 60:.1f} min",
        "rate": f"{dataset.fps:g} Hz",
        "cameras": ", ".join(dataset.cameras) or "none",
        **({"rig": rig} if rig else {}),
    }
    return template.substitute(
        title=html.escape(dataset.path.absolute().name),
        facts="".join(f"<li>{name} <b>{html.escape(value)}</b></li>" for name, value in facts.items()),
        rows="".join(_row(dataset, episode) for episode in chosen),
        cameras="".join(
            f'<figure><video muted playsinline preload="auto" data-camera="{html.escape(camera)}"></video>'
            f"<figcaption>{html.escape(camera)}</figcaption></figure>"
            for camera in dataset.cameras
        ),
        first=chosen[0].index if chosen else "null",
        footer=f"aloha_runtime {aloha_runtime.__version__}",
    )


def _row(dataset: Dataset, episode: Episode) -> str:
    report = reports.read(dataset.path, episode.index)
    outcome = html.escape(report.get("outcome") or "")
    flags = report.get("flags") or []
    task = html.escape(", ".join(episode.tasks))
    mark = f'<i class="flag" title="{html.escape("; ".join(flags))}">flagged</i>' if flags else ""
    return (
        f'<tr data-episode="{episode.index}"><td class="n">{episode.index}</td>'
        f'<td class="n">{episode.length / dataset.fps:.1f} s</td><td class="{outcome}">{outcome}</td>'
        f'<td>{mark}</td><td class="task" title="{task}">{task}</td></tr>'
    )
