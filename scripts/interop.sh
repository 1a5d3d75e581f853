#!/usr/bin/env bash
# LeRobot as an outside judge, in an environment of its own: its Dynamixel bus drives the emulated chain, and its dataset
# class opens what our writer wrote.
set -euo pipefail
cd "$(dirname "$0")/.."
UV=$(command -v uv || echo .venv/bin/uv)
[ -x .venv-interop/bin/python ] || "$UV" venv -q --python 3.12 .venv-interop
"$UV" pip install -q --python .venv-interop/bin/python "lerobot[dataset]==0.6.1" dynamixel-sdk pytest pytest-timeout fastcrc msgspec pydantic pyyaml pyzmq psutil
PYTHONPATH=. .venv-interop/bin/python -m pytest tests/interop "$@"
