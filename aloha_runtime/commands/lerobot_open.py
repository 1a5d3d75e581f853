"""Opens datasets with LeRobot. Run by `aloha bench recorder-kills` with LeRobot's own Python: imports nothing of ours.

For every folder read from standard input it writes a line: "ok" when LeRobot opens it and reads its first and last
frame, else what it complains of.
"""

import sys
from pathlib import Path


def main() -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    for line in sys.stdin:
        folder = Path(line.strip())
        try:
            dataset = LeRobotDataset("kills/dataset", root=folder, video_backend="pyav")
            frames = [dataset[0], dataset[len(dataset) - 1]]
            said = "ok" if all("action" in frame for frame in frames) else "a frame has no action"
        except Exception as error:  # whatever it is, it is the answer
            said = f"{type(error).__name__}: {error}".splitlines()[0]
        sys.stdout.write(said + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
