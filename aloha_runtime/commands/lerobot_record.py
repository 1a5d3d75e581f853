"""LeRobot's recording of four cameras, timed. Run by `aloha bench record` with LeRobot's own Python: it imports nothing
of ours.

    python lerobot_record.py PICTURES.npy FOLDER SECONDS

Its fastest way: frames are encoded while they arrive, H.264 ultrafast, a key frame every ten. Writes a line of JSON.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

FPS = 50
PIXELS_A_FRAME = 4


def main() -> None:
    pictures, folder, seconds = np.load(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    count, height, width = len(pictures), pictures.shape[1], pictures.shape[2] // 2
    dataset = make_dataset(folder, count, height, width)
    numbers = np.zeros(14, np.float32)
    times, started, cpu = [], time.perf_counter(), cpu_seconds()
    frames = int(seconds * FPS)
    for index in range(frames):
        time.sleep(max(0.0, started + index / FPS - time.perf_counter()))
        start = PIXELS_A_FRAME * index % width
        frame = {f"observation.images.cam_{n}": pictures[n, :, start : start + width] for n in range(count)}
        before = time.perf_counter()
        dataset.add_frame({**frame, "observation.state": numbers, "action": numbers, "task": "record"})
        times.append(1000 * (time.perf_counter() - before))
    spent = time.perf_counter() - started
    stopped = time.perf_counter()
    dataset.save_episode()
    wait = time.perf_counter() - stopped
    dataset.finalize()
    found = {
        "rate_hz": frames / spent,
        "add_p99_ms": float(np.quantile(times, 0.99)),
        "wait_s": wait,
        "cpu_ms": 1000 * (cpu_seconds() - cpu) / frames / count,
    }
    sys.stdout.write(json.dumps(found) + "\n")


def make_dataset(folder: Path, count: int, height: int, width: int):  # type: ignore[no-untyped-def]
    from lerobot.configs.video import RGBEncoderConfig
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    vector = {"dtype": "float32", "shape": (14,), "names": [f"joint_{index}" for index in range(14)]}
    image = {"dtype": "video", "shape": (height, width, 3), "names": ["height", "width", "channels"]}
    features = {f"observation.images.cam_{n}": image for n in range(count)}
    features |= {"observation.state": vector, "action": vector}
    encoder = RGBEncoderConfig(vcodec="h264", g=10, crf=23, preset="ultrafast", extra_options={"tune": "zerolatency"})
    return LeRobotDataset.create(
        "bench/record", FPS, features, root=folder, rgb_encoder=encoder, streaming_encoding=True, encoder_threads=1
    )


def cpu_seconds() -> float:
    """CPU time of this process, its threads, and the children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


if __name__ == "__main__":
    main()
