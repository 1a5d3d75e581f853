#!/usr/bin/env bash
# Makes .venv with the exact versions of requirements.txt and checks the system libraries. Safe to run again: it does
# nothing when all is there. Installs Debian packages only as root or with password-less sudo; else it names the command.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m%s\033[0m\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif sudo -n true 2>/dev/null; then sudo -n "$@"; else return 1; fi
}

# apt_install WHY PACKAGE...: install, or say exactly what the operator has to type.
apt_install() {
    local why=$1; shift
    command -v apt-get >/dev/null || fail "$why is missing; install the equivalent of these Debian packages: $*"
    say "installing $* ($why)"
    if ! { as_root apt-get update -qq && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }; then
        fail "$why is missing. Run this, then the same make command again:
    sudo apt-get update && sudo apt-get install -y --no-install-recommends $*"
    fi
}

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }

find_python() {
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3 python; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null && fits "$candidate"; then echo "$candidate"; return; fi
    done
}

# A library that the dynamic linker cannot find is missing, whatever the package manager says.
has_library() { "$PYTHON_FOUND" -c "import ctypes, sys; ctypes.CDLL(sys.argv[1])" "$1" 2>/dev/null; }

PYTHON_FOUND=$(find_python)
if [ -z "$PYTHON_FOUND" ] && command -v uv >/dev/null; then
    uv python install -q 3.12 || fail "no Python 3.11 or 3.12 here and uv could not fetch one"
    PYTHON_FOUND=$(uv python find 3.12)
fi
if [ -z "$PYTHON_FOUND" ]; then
    apt_install "Python 3.11 or 3.12" python3 python3-venv
    PYTHON_FOUND=$(find_python)
    [ -n "$PYTHON_FOUND" ] || fail "the system's Python is $(python3 --version 2>&1); install Python 3.11 or 3.12 (or uv, which fetches one) and say
    make PYTHON=/path/to/python3.12 demo"
fi

missing=()
has_library libGL.so.1 || missing+=(libgl1)                          # opencv-python's Qt
has_library libgthread-2.0.so.0 || missing+=(libglib2.0-0)           # opencv-python
has_library libusb-1.0.so.0 || missing+=(libusb-1.0-0)               # pyrealsense2
has_library libEGL.so.1 && has_library libEGL_mesa.so.0 || has_library libOSMesa.so.8 ||
    missing+=(libegl1 libegl-mesa0 libgl1-mesa-dri)                  # off-screen rendering of the simulated rig
[ ${#missing[@]} = 0 ] || apt_install "a system library" "${missing[@]}"

stamp=.venv/.installed
want=$(cat requirements.txt pyproject.toml scripts/setup.sh | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && .venv/bin/python -c "import aloha_runtime" 2>/dev/null; then
    exit 0
fi

if command -v uv >/dev/null; then
    UV=uv
    [ -x .venv/bin/python ] || uv venv -q --python "$PYTHON_FOUND" .venv
else
    [ -x .venv/bin/python ] || "$PYTHON_FOUND" -m venv .venv 2>/dev/null || {
        rm -rf .venv
        apt_install "Python's venv module" python3-venv
        "$PYTHON_FOUND" -m venv .venv || fail "$PYTHON_FOUND cannot make a virtual environment; install its venv package"
    }
    .venv/bin/python -m pip install -q --disable-pip-version-check uv==0.13.9 || fail "pip could not fetch uv; is there a network?"
    UV=.venv/bin/uv
fi
say "installing into .venv (about 6 GB the first time, mostly PyTorch with CUDA; later runs skip this)"
"$UV" pip install -q --python .venv/bin/python --require-hashes -r requirements.txt || fail "could not install requirements.txt (see above)"
"$UV" pip install -q --python .venv/bin/python --no-deps -e . || fail "could not install aloha_runtime itself (see above)"
echo "$want" >"$stamp"
