"""`aloha dataset view --rrd`: an episode as a recording for the Rerun viewer, cameras and numbers on one time line."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from aloha_runtime.commands.dataset_view import playable
from aloha_runtime.data.reader import Dataset
from aloha_runtime.data.selection import select
from aloha_runtime.data.units import flat_names
from aloha_runtime.errors import ConfigError

TIME_LINE = "time"


def rrd(path: Path, episode: int, out: Path) -> None:
    """Write one episode to `out`. Raises ConfigError when Rerun is not installed, DatasetError for a bad index."""
    rerun = need_rerun("--rrd")
    dataset = Dataset(path)
    (index,) = select([str(episode)], len(dataset.episodes))
    found = dataset.episodes[index]
    out.parent.mkdir(parents=True, exist_ok=True)
    stream = rerun.RecordingStream(f"{path.absolute().name}-{index}")
    stream.save(out)
    times = rerun.TimeColumn(TIME_LINE, duration=np.arange(found.length) / dataset.fps)
    span = slice(found.from_index, found.to_index)
    for key in dataset.info.vectors:
        values = dataset.vectors(key)[span]
        names = flat_names(dataset.features[key].names) or [str(number) for number in range(values.shape[1])]
        for name, column in zip(names, values.T, strict=True):
            entity = f"{key}/{name}"
            stream.send_columns(entity, indexes=[times], columns=rerun.Scalars.columns(scalars=column))
    with tempfile.TemporaryDirectory() as folder:
        for camera, video in found.videos.items():
            film = Path(folder) / f"{index}_{camera}.mp4"
            playable(dataset, found, video, film)
            _film(rerun, stream, f"cameras/{camera}", film)
    stream.flush()
    stream.disconnect()


def _film(rerun: Any, stream: Any, entity: str, film: Path) -> None:
    """The video itself, and when which of its frames is shown."""
    asset = rerun.AssetVideo(path=film)
    stream.log(entity, asset, static=True)
    shown_ns = asset.read_frame_timestamps_nanos()
    stream.send_columns(
        entity,
        indexes=[rerun.TimeColumn(TIME_LINE, duration=1e-9 * np.asarray(shown_ns))],
        columns=rerun.VideoFrameReference.columns_nanos(shown_ns),
    )


def need_rerun(what: str) -> Any:
    """Rerun's module; ConfigError that says what needs it where it is not installed."""
    try:
        import rerun
    except ImportError:
        raise ConfigError(f'{what} needs Rerun: pip install "aloha-runtime[view]"') from None
    return rerun
