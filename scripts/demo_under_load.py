"""`aloha demo` beside busy processes, again and again: how often in real time, how often in virtual time, how long.

    python scripts/demo_under_load.py [RUNS] [BUSY PROCESSES]

Exit code 1 when a run failed. Ends what it has started, and nothing else.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOG = "while True: pass"


def main(runs: int, hogs: int) -> int:
    """Print one line for each run."""
    busy = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(hogs)]
    failed = 0
    try:
        for number in range(runs):
            with tempfile.TemporaryDirectory(prefix="demo-") as folder:
                words = ["--seed", str(number), "--out", f"{folder}/out", "--run-dir", f"{folder}/run"]
                began, load = time.monotonic(), os.getloadavg()[0]
                ran = subprocess.run(
                    [sys.executable, "-m", "aloha_runtime.cli", "demo", *words],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                seconds = time.monotonic() - began
                report = Path(folder, "out", "report.json")
                found = json.loads(report.read_text()) if report.exists() else {}
            failed += ran.returncode != 0
            marked = found.get("too_busy_for_real_time") or (ran.stderr.strip()[-300:] if ran.returncode else "")
            print(
                f"seed {number}: exit {ran.returncode}, {found.get('clock')} time, success {found.get('success')},"
                f" {seconds:.0f} s, load before {load:.1f}. {marked}",
                flush=True,
            )
    finally:
        for hog in busy:
            hog.kill()
            hog.wait()
    return int(failed > 0)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*(numbers + [10, 8][len(numbers) :])))
