"""A dataset with twelve kinds of features that this runtime does not use, written file by file as LeRobot lays it out.

Every cell says which episode and frame it belongs to, so that a row that went astray shows.
"""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aloha_runtime.data import rows, statistics

LENGTHS, TASKS, FPS, SIZE = (11, 8, 13), ("lift", "turn", "lift"), 29.97, (16, 32)
CAMERA, DEPTH, STORED = "observation.images.cam", "observation.images.cam_depth", "observation.images.stored"
ROLE = pa.struct([pa.field("role", pa.string(), nullable=False), pa.field("content", pa.string())])

KINDS: dict[str, tuple[str, list[int], Any]] = {
    "observation.tactile": ("float32", [2, 3], pa.list_(pa.list_(pa.float32()))),
    "observation.points": ("float32", [2, 2, 3], pa.list_(pa.list_(pa.list_(pa.float32())))),
    "observation.contact": ("bool", [4], pa.list_(pa.bool_(), 4)),
    "next.done": ("bool", [1], pa.bool_()),
    "observation.buttons": ("int64", [3], pa.list_(pa.int64(), 3)),
    "observation.clock_ns": ("float64", [2], pa.list_(pa.float64(), 2)),
    "observation.ticks": ("uint16", [2], pa.list_(pa.uint16(), 2)),
    "instruction": ("string", [1], pa.string()),
    "language_events": ("language", [1], pa.list_(ROLE)),
    STORED: ("image", [*SIZE, 3], pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
}
"""Feature to dtype, shape and column type; with the two videos (channel-first colour, 12-bit depth) they are twelve."""


def cell(key: str, episode: int, frame: int) -> Any:
    number = 100 * episode + frame
    dtype, shape, _ = KINDS[key]
    if key == "instruction":
        return f"épisode {episode}, frame {frame}"
    if key == "language_events":
        return [{"role": "user", "content": None if frame % 2 else f"say {number}"}] * (frame % 3)
    if key == STORED:
        return {"bytes": png(number), "path": f"frame_{number}.png"}
    if dtype == "bool":
        return (np.arange(shape[0]) + number) % 2 == 0 if shape != [1] else number % 2 == 0
    values = np.arange(np.prod(shape)).reshape(shape) + number
    return (values + 1e-9).tolist() if dtype == "float64" else values.astype(dtype).tolist()


def png(number: int) -> bytes:
    return bytes(cv2.imencode(".png", np.full((*SIZE, 3), number % 251, np.uint8))[1].tobytes())


def depth(episode: int, frame: int) -> np.ndarray:
    """12-bit values that 8 bits cannot hold, (H, W) uint16."""
    return (np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE) * 7 + 100 * episode + frame) % 4096


def write(root: Path) -> Path:
    """All episodes share one file of rows and one of each video, as in LeRobot's own datasets."""
    vectors = {"observation.state": ["x", "y"], "action": ["x", "y"]}
    features: dict[str, Any] = {
        key: {"dtype": "float32", "shape": [2], "names": {"motors": names}} for key, names in vectors.items()
    }
    features |= {key: {"dtype": dtype, "shape": shape, "names": None} for key, (dtype, shape, _) in KINDS.items()}
    features[STORED]["names"] = ["height", "width", "channel"]
    features[CAMERA] = {"dtype": "video", "shape": [3, *SIZE], "names": ["channels", "height", "width"]}
    features[CAMERA]["video_info"] = {"video.codec": "h264", "video.pix_fmt": "yuv420p", "video.fps": FPS}
    features[DEPTH] = {"dtype": "video", "shape": [*SIZE, 1], "names": ["height", "width", "channels"]}
    features[DEPTH]["info"] = {"video.codec": "hevc", "video.pix_fmt": "gray12le", "is_depth_map": True}
    counters = {"timestamp": "float32"} | dict.fromkeys(
        ("frame_index", "episode_index", "index", "task_index"), "int64"
    )
    features |= {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in counters.items()}
    info = {"codebase_version": "v3.0", "fps": FPS, "features": features, "robot_type": "aloha"}
    info |= {"total_episodes": len(LENGTHS), "total_frames": sum(LENGTHS), "total_tasks": 2}
    for folder in ("meta/episodes/chunk-000", "data/chunk-000"):
        (root / folder).mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    _write_rows(root)
    for key in (CAMERA, DEPTH):
        _write_video(root / f"videos/{key}/chunk-000/file-000.mp4", is_depth=key == DEPTH)
    return root


def _write_rows(root: Path) -> None:
    places = [(episode, frame) for episode, length in enumerate(LENGTHS) for frame in range(length)]
    columns: dict[str, Any] = {
        key: pa.array([[episode, frame / 10] for episode, frame in places], pa.list_(pa.float32(), 2))
        for key in ("observation.state", "action")
    }
    for key, (_, _, kind) in KINDS.items():
        columns[key] = pa.array([cell(key, *place) for place in places], kind)
    columns["timestamp"] = pa.array(np.array([frame / FPS for _, frame in places], np.float32))
    columns["frame_index"] = pa.array([frame for _, frame in places])
    columns["episode_index"] = pa.array([episode for episode, _ in places])
    columns["index"] = pa.array(range(len(places)))
    columns["task_index"] = pa.array([0 if TASKS[episode] == "lift" else 1 for episode, _ in places])
    pq.write_table(pa.table(columns), root / "data/chunk-000/file-000.parquet")
    pq.write_table(rows.tasks_table(["lift", "turn"]), root / "meta/tasks.parquet")
    begin, episodes, whole = 0, [], {}
    for episode, length in enumerate(LENGTHS):
        row: dict[str, Any] = {"episode_index": episode, "tasks": [TASKS[episode]], "length": length}
        row |= {"data/chunk_index": 0, "data/file_index": 0}
        row |= {"dataset_from_index": begin, "dataset_to_index": begin + length}
        for key in (CAMERA, DEPTH):
            row |= {f"videos/{key}/chunk_index": 0, f"videos/{key}/file_index": 0}
            row |= {f"videos/{key}/from_timestamp": begin / FPS, f"videos/{key}/to_timestamp": (begin + length) / FPS}
        values = np.array([[episode, frame / 10] for frame in range(length)], np.float32)
        stats = {key: statistics.vector_stats(values) for key in ("observation.state", "action")}
        clock = np.array([cell("observation.clock_ns", episode, frame) for frame in range(length)])
        stats["observation.clock_ns"] = statistics.vector_stats(clock)
        stats[DEPTH] = statistics.vector_stats(np.array([[900.0]] * length))
        row |= {f"stats/{key}/{name}": each.tolist() for key, made in stats.items() for name, each in made.items()}
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        episodes.append(rows.episode_table(row))
        whole = statistics.merge_all(whole, stats)
        begin += length
    pq.write_table(pa.concat_tables(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
    (root / "meta/stats.json").write_text(json.dumps(statistics.to_json(whole)))


def _write_video(path: Path, *, is_depth: bool) -> None:
    path.parent.mkdir(parents=True)
    rate = Fraction(2997, 100)
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("libx265" if is_depth else "libx264", rate=rate)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "gray12le" if is_depth else "yuv420p"
        options = {"x265-params": "lossless=1:log-level=none:pools=1"} if is_depth else {"tune": "zerolatency"}
        stream.codec_context.options, stream.codec_context.gop_size = options, 4
        stream.codec_context.time_base, stream.codec_context.max_b_frames = 1 / rate, 0
        number = 0
        for episode, length in enumerate(LENGTHS):
            for index in range(length):
                if is_depth:
                    frame = av.VideoFrame.from_ndarray(depth(episode, index), format="gray12le")
                else:
                    frame = av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 50 * episode + 5 * index, np.uint8), "rgb24")
                    frame = frame.reformat(format="yuv420p")
                frame.pts, frame.time_base = number, 1 / rate
                if index == 0:
                    frame.pict_type = av.video.frame.PictureType.I
                container.mux(stream.encode(frame))
                number += 1
        container.mux(stream.encode(None))


def read_depth(path: Path) -> list[np.ndarray]:
    with av.open(path) as container:
        return [frame.to_ndarray() for frame in container.decode(container.streams.video[0])]
