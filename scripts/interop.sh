#!/usr/bin/env bash
# LeRobot as an outside judge, in an environment of its own (it needs Python 3.12): its Dynamixel bus drives the emulated
# chain, its dataset class opens what our writer wrote, and its ACT policy opens our checkpoints and makes some for us.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=.venv-interop

# The first Python 3.12 that really is one: on the PATH, pyenv's (whose shim on the PATH may point nowhere), or uv's own.
python312() {
    local candidate
    for candidate in "$(command -v python3.12 || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python3.12; do
        if [ -x "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo 3.12
}

UV=$(command -v uv || echo .venv/bin/uv)
if ! [ -x "$UV" ]; then
    echo "uv is missing: run \`make setup\` first" >&2
    exit 1
fi
PYTHON=$(python312)
if ! [ -x $VENV/bin/python ] && ! "$UV" venv -q --python "$PYTHON" $VENV; then
    echo "no Python 3.12 here and uv cannot fetch one: install it (apt, pyenv) and run this again" >&2
    exit 1
fi
"$UV" pip install -q --python $VENV/bin/python "lerobot[dataset,viz,deepdiff-dep,training]==0.6.1" \
    dynamixel-sdk fastcrc hypothesis msgspec psutil pydantic pytest pytest-timeout pyyaml pyzmq rich typer
PYTHONPATH=. $VENV/bin/python -m pytest tests/interop "$@"
