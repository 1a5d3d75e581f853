"""Runs inside the LeRobot environment: records a motion with LeRobot, then reads this recording and ours with LeRobot.

Arguments: motion.npz, folder of LeRobot's dataset, folder of ours, output.npz. Frames are put together as LeRobot's own
programs do it: observation and action by `build_dataset_frame` (lerobot/scripts/lerobot_record.py), `intervention` as
its DAgger rollout tags it (rollout/strategies/dagger.py), `next.*` as its evaluation records them (lerobot_eval.py).
"""

import json
import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.utils.feature_utils import build_dataset_frame, hw_to_dataset_features

motion, theirs, ours, output = np.load(sys.argv[1]), *sys.argv[2:]
names, task = motion["names"].tolist(), str(motion["task"])
camera = motion["pictures"].shape[1:]
flag = {"dtype": "bool", "shape": (1,), "names": None}
features = {
    **hw_to_dataset_features(dict.fromkeys(names, float), "action"),
    **hw_to_dataset_features({**dict.fromkeys(names, float), "cam_high": camera}, "observation"),
    "intervention": flag,
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    "next.success": flag,
    "next.done": flag,
}
dataset = LeRobotDataset.create("local/theirs", fps=50, features=features, root=theirs, robot_type="aloha")
last = len(motion["action"]) - 1
for index in range(last + 1):
    seen = dict(zip(names, motion["state"][index], strict=True)) | {"cam_high": motion["pictures"][index]}
    acted = dict(zip(names, motion["action"][index], strict=True))
    success = index == last and bool(motion["success"])
    dataset.add_frame(
        {
            **build_dataset_frame(features, seen, prefix="observation"),
            **build_dataset_frame(features, acted, prefix="action"),
            "intervention": np.array([motion["intervention"][index]], dtype=bool),
            "next.reward": np.atleast_1d(np.float32(success)),
            "next.success": np.atleast_1d(np.bool_(success)),
            "next.done": np.atleast_1d(np.bool_(index == last)),
            "task": task,
        }
    )
dataset.save_episode()
dataset.finalize()

seen = {}
for name, root in (("theirs", theirs), ("ours", ours)):
    read = LeRobotDataset(f"local/{name}", root=root, video_backend="pyav")
    items = [read[index] for index in range(len(read))]
    described = {}
    for key in features | {"timestamp": 0, "frame_index": 0, "episode_index": 0, "index": 0, "task_index": 0}:
        seen[f"{name}/{key}"] = np.stack([item[key].numpy() for item in items])
        feature = read.meta.features[key]
        described[key] = [feature["dtype"], list(feature["shape"]), feature["names"]]
        for statistic in ("min", "max", "mean", "std", "count"):
            seen[f"{name}/stats/{key}/{statistic}"] = np.asarray(read.meta.stats[key][statistic], dtype=np.float64)
    described["task"] = sorted({item["task"] for item in items})
    seen[f"{name}/described"] = np.array(json.dumps(described))

try:  # the learner's own reader of datasets, where its dependencies are installed
    from lerobot.rl.buffer import ReplayBuffer
except ImportError as error:
    seen["learner"] = np.array(str(error))
else:
    read = LeRobotDataset("local/ours", root=ours, video_backend="pyav")
    steps = ReplayBuffer._lerobotdataset_to_transitions(read, ["observation.state"])
    seen["learner"] = np.array([[step["reward"], step["done"]] for step in steps])
np.savez(output, **seen)
