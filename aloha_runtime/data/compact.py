"""Many small files as few large ones: several episodes in each file, up to the sizes that LeRobot aims at.

Frames stay as they are, bit for bit: videos are joined packet by packet. A video of other parameters (encoder, size)
than the one before begins a new file.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from aloha_runtime import inside
from aloha_runtime.data import features, files, layout, reports, rows, statistics
from aloha_runtime.data.episode_store import pretty_json
from aloha_runtime.data.layout import Info
from aloha_runtime.data.pieces import Source, link
from aloha_runtime.data.staging import ASIDE, clear
from aloha_runtime.data.video_cut import cut, taken
from aloha_runtime.data.video_encoder import on_this_machine

MB = 1 << 20


def compact(source: Source, out: Path, advance: Callable[[int], None] = lambda _: None) -> None:
    """Write the dataset with large files at `out`. Raises DatasetError."""
    dataset = source.dataset
    info = msgspec.structs.replace(dataset.info, data_path=layout.DATA_PATH, video_path=layout.VIDEO_PATH)
    total = info.total_episodes
    found = rows.read_episode_rows(dataset.path, total, with_stats=True)
    aside = out / ASIDE
    with files.all_at_once():
        aside.mkdir(parents=True)
        places = _data(source, out, info)
        for row, place in zip(found, places, strict=True):
            row.update({"data/chunk_index": place[0], "data/file_index": place[1]})
            row.update({"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        keys = info.video_keys
        for key in keys:
            _videos(source, key, out, info, found, advance if key == keys[-1] else lambda _: None)
        tables = [rows.episode_table(row) for row in found]
        files.publish_table(
            pa.concat_tables(tables, promote_options="default"),
            aside / "episodes.parquet",
            layout.episodes_file(out, 0, 0),
        )
        files.publish_table(rows.tasks_table(dataset.tasks), aside / "tasks.parquet", out / layout.TASKS_PATH)
        for path in [*(path for _, path in reports.listed(dataset.path)), dataset.path / reports.RIG_PATH]:
            if path.exists():
                target = out / path.relative_to(dataset.path)
                files.make_directory(target.parent)
                link(path, target)
        stats: statistics.Stats = {}
        for row in found:
            stats = statistics.merge_all(stats, rows.row_stats(row))
        files.publish_bytes(pretty_json(statistics.to_json(stats)), aside / "stats.json", out / layout.STATS_PATH)
        files.publish_bytes(pretty_json(info), aside / "info.json", out / layout.INFO_PATH)
        clear(out)


def _data(source: Source, out: Path, info: Info) -> list[rows.Place]:
    """Rows of all frames; returns the file of each episode."""
    dataset = source.dataset
    limit, place = info.data_files_size_in_mb * MB, (0, 0)
    waiting: list[pa.Table] = []
    places: list[rows.Place] = []
    tables: dict[Path, pa.Table] = {}
    size = 0
    for episode in dataset.episodes:
        if episode.data_path not in tables:
            tables = {episode.data_path: rows.read_table(episode.data_path)}
        table = tables[episode.data_path]
        own = table.filter(pc.equal(table["episode_index"], episode.index))
        if waiting and (size + own.nbytes > limit or own.schema != waiting[0].schema):
            _publish_data(waiting, out, info, place)
            waiting, size, place = [], 0, rows.next_place({place}, info.chunks_size)
        waiting.append(own)
        size += own.nbytes
        places.append(place)
    _publish_data(waiting, out, info, place)
    return places


def _publish_data(tables: list[pa.Table], out: Path, info: Info, place: rows.Place) -> None:
    files.publish_table(pa.concat_tables(tables), out / ASIDE / "data.parquet", layout.data_file(out, info, *place))


def _videos(
    source: Source, key: str, out: Path, info: Info, found: list[dict[str, Any]], advance: Callable[[int], None]
) -> None:
    """Join the episodes of one camera, and write into their rows where each now is."""
    limit, place = info.video_files_size_in_mb * MB, (0, 0)
    head, fps = f"videos/{key}/", info.fps
    feature = info.features[key]
    height, width, _ = feature.size
    name = features.codec_of(feature)
    own = on_this_machine(name, height, width) if name and feature.is_camera else None
    joined: _Joined | None = None
    for episode, row in zip(source.dataset.episodes, found, strict=True):
        span = episode.videos[layout.camera_name(key)]
        path, first = span.path, source.first(episode.index, span)
        seen = source.packets(path)
        if not seen.can_copy(first, episode.length):
            path, first = out / ASIDE / "part.mp4", 0
            cut(span.path, path, source.first(episode.index, span), episode.length, fps, own, seen)
        if joined is not None and (joined.bytes > limit or not joined.fits(path)):
            joined.close()
            place, joined = rows.next_place({place}, info.chunks_size), None
        if joined is None:
            target = layout.video_file(out, info, key, *place)
            files.make_directory(target.parent)
            joined = _Joined(target, fps)
        row.update({head + "chunk_index": place[0], head + "file_index": place[1]})
        row[head + "from_timestamp"] = joined.frames / fps
        joined.add(path, first, episode.length)
        row[head + "to_timestamp"] = joined.frames / fps
        inside.unlink(out, out / ASIDE / "part.mp4")
        advance(1)
    if joined is not None:
        joined.close()


class _Joined:
    """One video file that grows by the packets of others."""

    def __init__(self, path: Path, fps: float) -> None:
        self._container = av.open(path, "w", format="mp4")
        self._stream: av.VideoStream | None = None
        self._extradata: bytes | None = None
        self._fps = fps
        self.frames = self.bytes = 0

    def fits(self, path: Path) -> bool:
        """Whether a decoder that was set up for what is here decodes that file as well."""
        with av.open(path) as given:
            return bytes(given.streams.video[0].codec_context.extradata or b"") == self._extradata

    def add(self, path: Path, first: int, frames: int) -> None:
        """Append `frames` frames of `path` from `first` on, which is a key frame."""
        with av.open(path) as given:
            if self._stream is None:
                stream = given.streams.video[0]
                self._stream = self._container.add_stream_from_template(stream, opaque=True)
                self._extradata = bytes(stream.codec_context.extradata or b"")
            for packet in taken(given, first, frames, self._fps, to=self.frames):
                packet.stream = self._stream
                self.bytes += packet.size
                self._container.mux(packet)
        self.frames += frames

    def close(self) -> None:
        self._container.close()
