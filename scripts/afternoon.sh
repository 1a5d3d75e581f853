#!/usr/bin/env bash
# A researcher's afternoon with one kit on the simulated rig, in virtual time: a rig file whose grippers are mounted
# elsewhere on every arm, demonstrations by a scripted person, their check and replay, and a policy.
# Usage: scripts/afternoon.sh aloha|aloha2 [FOLDER]   (PYTHON: the interpreter, .venv/bin/python by default)
set -euo pipefail
cd "$(dirname "$0")/.."
KIT=$1
OUT=${2:-outputs/afternoon-$KIT}
PYTHON=${PYTHON:-.venv/bin/python}
RUN=$(mktemp -d)
trap 'rm -rf -- "$RUN"' EXIT
mkdir -p "$OUT"
aloha() { echo "\$ aloha $*"; "$PYTHON" -m aloha_runtime.cli "$@"; }

"$PYTHON" - "$KIT" "$OUT/rig.yaml" <<'PY'
import sys

import yaml

from aloha_runtime.commands.faults.gripper_ranges import rig_of

shifts = {"leader_left": -0.25, "leader_right": 0.39, "follower_left": 0.39, "follower_right": -0.25}
plain = rig_of(sys.argv[1], shifts).model_dump(mode="json", exclude_none=True)
plain["sim"]["clock"] = "virtual"
with open(sys.argv[2], "w") as file:
    yaml.safe_dump(plain, file)
PY
aloha config check "$OUT/rig.yaml"
aloha record --rig "$OUT/rig.yaml" --dataset "$OUT/dataset" --task "hand the cube over" --episodes 1 --scripted \
    --seed 3 --run-dir "$RUN"
aloha dataset check "$OUT/dataset"
aloha replay "$OUT/dataset" 0 --rig "$OUT/rig.yaml" --seed 3 --out "$OUT/replay" --run-dir "$RUN"
aloha demo --rig "$OUT/rig.yaml" --seed 1 --out "$OUT/demo" --run-dir "$RUN"
