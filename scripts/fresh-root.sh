#!/usr/bin/env bash
# The installation of docs/robot-pc.md from its first line to its last, in a fresh Debian that debootstrap makes: only git,
# make and Python are there. Every step is timed; the simulated rig stands in for the robot; nothing here is changed.
# Needs root and debootstrap. Usage: sudo scripts/fresh-root.sh [SUITE]
# In the environment: MIRROR (default: this machine's first apt source), BIND="FOLDER..." (shown inside at the same path:
# a package index or certificates of this machine); PIP_*, UV_*, SSL_CERT_* and *_proxy are passed on.
set -euo pipefail
cd "$(dirname "$0")/.."
SUITE=${1:-bookworm}
RULES_SUITE=trixie # the first Debian whose udevadm can verify rules
[ "$(id -u)" = 0 ] || { echo "fresh-root.sh: run it as root (sudo scripts/fresh-root.sh)" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "fresh-root.sh: sudo apt-get install debootstrap" >&2; exit 1; }
MIRROR=${MIRROR:-$(apt-get indextargets --format '$(SITE)' | head -n 1)}
if [ -z "${INSIDE:-}" ]; then # mounts live and die with this namespace
    WORK=$(mktemp -d /var/tmp/aloha-root.XXXXXX)
    trap 'rm -rf "$WORK"' EXIT
    echo "$(date +%T) a fresh $SUITE in $WORK"
    debootstrap --variant=minbase --include=ca-certificates,systemd,udev "$SUITE" "$WORK/root" "$MIRROR" >"$WORK/log" ||
        { tail -n 20 "$WORK/log" >&2; exit 1; }
    INSIDE=1 WORK=$WORK MIRROR=$MIRROR unshare --mount --propagation private bash "$0" "$SUITE"
    exit
fi

R=$WORK/root
for folder in ${BIND:-}; do mkdir -p "$R$folder"; mount --rbind "$folder" "$R$folder"; done
mkdir -p "$R/usr/src/aloha"; mount --bind . "$R/usr/src/aloha"
mount -t proc proc "$R/proc"; mount --rbind /sys "$R/sys"; mount --rbind /dev "$R/dev"
mount -t tmpfs tmpfs "$R/dev/shm"; mount -t tmpfs tmpfs "$R/run"; mount -t tmpfs tmpfs "$R/tmp"
cp /etc/resolv.conf "$R/etc/"; cp /etc/hosts "$R/etc/"
mapfile -t PASSED < <(env | grep -iE '^(PIP_|UV_|SSL_CERT_|[a-z]*_proxy=)' || true)
inside() { env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root "${PASSED[@]}" chroot "$R" bash -ec "cd /root; $1"; }
TOTAL=0
step() { # COMMAND: run it inside, say how long it took, and its last lines
    local began=$SECONDS
    if ! inside "$1" >"$WORK/step" 2>&1; then tail -n 40 "$WORK/step"; echo "FAILED: $1"; exit 1; fi
    TOTAL=$((TOTAL + SECONDS - began))
    printf '%4d s  $ %s\n' $((SECONDS - began)) "$1"
    tail -n "${2:-2}" "$WORK/step" | sed 's/^/          /'
}

step "apt-get update && apt-get install -y --no-install-recommends git make python3 python3-venv" 0
step "git -c safe.directory='*' clone --quiet /usr/src/aloha /opt/aloha" 0
step "make -C /opt/aloha setup"
step "make -C /opt/aloha demo" 4
step "ln -s /opt/aloha/.venv/bin/aloha /usr/local/bin/aloha"
step "aloha setup --rig sim --yes --out my_rig.yaml" 6
step "aloha doctor --rig my_rig.yaml" 12
step "aloha install --rig my_rig.yaml --job demonstrate --dry-run" 20
printf '%4d s  all of it\n' $TOTAL

echo "== udev rules of a rig with serial numbers, by the udevadm of $RULES_SUITE"
sed 's/port: \/dev\/ttyDXL_\([a-z_]*\)/&, serial: FT_\1/; s/device: \/dev\/\([A-Z_]*\)/&, serial: \1/' "$R/opt/aloha/configs/aloha.yaml" >"$R/root/serials.yaml"
inside "/opt/aloha/.venv/bin/aloha install --rig serials.yaml --root /root/tree" | tail -n 1
debootstrap --variant=minbase --include=udev "$RULES_SUITE" "$WORK/rules" "$MIRROR" >"$WORK/log" || { tail "$WORK/log"; exit 1; }
cp "$R/root/tree/etc/udev/rules.d/60-aloha.rules" "$WORK/rules/root/"
grep -v '^#' "$WORK/rules/root/60-aloha.rules"
chroot "$WORK/rules" udevadm verify /root/60-aloha.rules

echo "== the service, under a systemd of its own"
umount -R "$R/proc" "$R/sys" "$R/dev" "$R/run" "$R/tmp"
bash scripts/systemd.sh "$R" /root/my_rig.yaml
