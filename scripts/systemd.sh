#!/usr/bin/env bash
# Proof of the installation under a real systemd: boots one as PID 1 of its own namespaces on an overlay of this machine
# (nothing here is changed), installs the simulated rig there, kills and stops every unit, and prints what happened.
# Needs root, systemd, and the system's Python of the same version as .venv. Usage: sudo scripts/systemd.sh [ROOT RIG]
# ROOT: boot on an overlay of this tree instead, in which /opt/aloha holds a checkout after `make setup`, and install
# its rig file RIG (`scripts/fresh-root.sh` makes such a tree).
set -euo pipefail
cd "$(dirname "$0")/.."
CHECKOUT=$PWD
LOWER=${1:-/}
RIG=${2:-sim}
[ "$(id -u)" = 0 ] || { echo "systemd.sh: run it as root (sudo scripts/systemd.sh)" >&2; exit 1; }
if [ "$LOWER" = / ]; then
    VERSION=$("$CHECKOUT/.venv/bin/python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    command -v "/usr/bin/$VERSION" >/dev/null || { echo "systemd.sh: needs /usr/bin/$VERSION" >&2; exit 1; }
    export VERSION
fi
WORK=$(mktemp -d)
BOOTED=0
end() { # the systemd inside, with everything in its namespaces
    if [ $BOOTED != 0 ]; then kill -9 $(pgrep -P $BOOTED) || true; wait $BOOTED || true; fi
    rm -rf "$WORK"
}
trap end EXIT

cat >"$WORK/inside.sh" <<'INSIDE'
# Runs as a unit inside: everything after the boot.
export PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /
systemctl start systemd-journald
aloha=/opt/aloha/.venv/bin/aloha
as_aloha() { setpriv --reuid aloha --regid aloha --init-groups env HOME=/var/lib/aloha "$@"; }
pid() { systemctl show -p MainPID --value "$1"; }
since() { echo $((($(date +%s%N) - $1) / 1000000)); }
mode() { as_aloha aloha status --once | grep -m 1 mode; }
off() { while systemctl --quiet is-active 'aloha-*'; do sleep 0.05; done; }
again() { # wait until a unit runs again, as another process
    while now=$(pid "$1"); [ "$now" = 0 ] || [ "$now" = "$2" ] || [ "$(systemctl is-active "$1")" != active ]; do sleep 0.05; done
}
exposure() { systemd-analyze security --no-pager --offline=yes "$@" | sed -n 's/.*level for \(.*\): \([0-9.]*\) .*/exposure of \1: \2/p'; }
start() { # what was installed
    systemd-analyze verify /etc/systemd/system/aloha* && echo "systemd-analyze verify: no complaint"
    exposure /etc/systemd/system/aloha*.service
    begin=$(date +%s%N); systemctl start aloha.target; echo "start: every unit ready after $(since "$begin") ms"
}
killed() {
    before=$(pid "$1"); begin=$(date +%s%N)
    kill -9 "$before"; again "$1" "$before"
    echo "killed $1: ready again after $(since "$begin") ms"
}
stuck() {
    before=$(pid "$1"); begin=$(date +%s%N)
    kill -STOP "$before"; again "$1" "$before"
    echo "stuck $1: killed by its watchdog, ready again after $(since "$begin") ms"
}

echo "== teleoperation by a script, all motion recorded"
$aloha install --rig "$RIG" --job demonstrate
as_aloha aloha record --rig /etc/aloha/rig.yaml --dataset /var/lib/aloha/cubes --task "hand the cube over" --scripted --episodes 1 | tail -3
$aloha install --rig "$RIG" --job demonstrate --dataset /var/lib/aloha/cubes --task "hand the cube over"
start
for unit in $(systemctl show -p Wants --value aloha.target); do killed "$unit"; done
stuck aloha-teleop; stuck aloha-arms@followers
as_aloha aloha arm; sleep 6; mode
begin=$(date +%s%N); systemctl stop aloha.target; off; echo "systemctl stop aloha.target: parked and ended after $(since "$begin") ms"
journalctl --no-pager -o cat -t supervisor | grep -E 'park|idle' | tail -3
as_aloha aloha dataset check /var/lib/aloha/cubes | tail -4

echo "== a policy"
$aloha install --rig "$RIG" --job deploy --checkpoint demo | tail -2
start
killed aloha-policy; stuck aloha-policy
as_aloha aloha arm; sleep 4; as_aloha aloha start; sleep 2; mode
as_aloha aloha down; off; echo "aloha down: no unit is active"
$aloha uninstall | tail -1; ls /etc/systemd/system/aloha* /etc/aloha 2>&1 | tail -1

echo "== units of the real kits, which need their arms to be started"
for kit in aloha aloha2; do
    $aloha install --rig $kit --job deploy --checkpoint demo --root /tmp/$kit >/tmp/$kit.log || cat /tmp/$kit.log
    echo "$kit:"; exposure /tmp/$kit/etc/systemd/system/aloha-{arms,camera}@.service
done
echo END
INSIDE

cat >"$WORK/boot.sh" <<'BOOT'
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$WORK/overlay"
mkdir "$WORK"/overlay/{up,work,root}
R=$WORK/overlay/root
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$WORK/overlay/up,workdir=$WORK/overlay/work" "$R"
mount -t proc proc "$R/proc"; mount --rbind /sys "$R/sys"; mount --rbind /dev "$R/dev"
mount -t tmpfs tmpfs "$R/dev/shm"; mount -t tmpfs tmpfs "$R/run"; mount -t tmpfs tmpfs "$R/tmp"
if [ "$LOWER" = / ]; then # this checkout, with the system's own Python
    chroot "$R" "/usr/bin/$VERSION" -m venv --without-pip /opt/aloha/.venv
    printf '%s\n' "$CHECKOUT" "$CHECKOUT/.venv/lib/$VERSION/site-packages" >"$R/opt/aloha/.venv/lib/$VERSION/site-packages/checkout.pth"
    printf '#!/opt/aloha/.venv/bin/python\nfrom aloha_runtime.cli import main\nmain()\n' >"$R/opt/aloha/.venv/bin/aloha"
    chmod +x "$R/opt/aloha/.venv/bin/aloha"
fi
for unit in systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket; do
    ln -sf /dev/null "$R/etc/systemd/system/$unit" # devices are this machine's, and not for a second udev
done
mkdir -p "$R/proof" "$R/oldroot"; mount --bind "$WORK" "$R/proof"
printf '[Service]\nType=oneshot\nEnvironment=RIG=%s\nExecStart=/bin/bash /proof/inside.sh\nStandardOutput=append:/proof/log\nStandardError=append:/proof/log\nTimeoutStartSec=600\n' \
    "$RIG" >"$R/etc/systemd/system/proof.service"
cd "$R"; pivot_root . oldroot
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /bin/sh -c \
    'umount -l /oldroot; exec /lib/systemd/systemd --system --unit=proof.service --log-target=null'
BOOT

mkdir "$WORK/overlay"; touch "$WORK/log"
export CHECKOUT LOWER RIG WORK
unshare --net --mount --pid --fork --kill-child --uts --ipc --mount-proc --cgroup bash "$WORK/boot.sh" >"$WORK/console" 2>&1 &
BOOTED=$!
tail -n +1 -f "$WORK/log" --pid=$BOOTED | while read -r line; do [ "$line" != END ] || break; echo "$line"; done || true
grep -qx END "$WORK/log" || { echo "systemd.sh: it did not come to its end" >&2; exit 1; }
