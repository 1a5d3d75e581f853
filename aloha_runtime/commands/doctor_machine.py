"""The robot PC itself: Python, libraries, real-time rights, memory, disk, GPU, clock. Nothing here is changed."""

import ctypes
import getpass
import grp
import importlib.util
import itertools
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from aloha_runtime.commands.findings import Finding, fail, ok, warn
from aloha_runtime.config import RigConfig
from aloha_runtime.data.session import LEAST_FREE_BYTES
from aloha_runtime.realtime import NS_PER_S

PROBE_BYTES = 64 << 20
LEAST_MB_S = 10.0
"""Four cameras of 640x480 at 50 fps take 2 MB/s as H.264; a disk below this stalls when anything else writes."""
HOUR_BYTES = 5e9
"""An hour of such a recording."""
SHARED_MEMORY_BYTES = 64 << 20
"""Frame rings of four cameras: 8 slots of 0.9 MB each, twice over."""
CLOCK_TRIES = 1000


def check_machine(rig: RigConfig, folder: Path) -> Iterator[Finding]:
    """Everything that needs no arm and no camera. `folder`: where recordings go."""
    yield from _check_python(rig)
    yield from _check_libraries(rig)
    yield from _check_realtime(rig)
    yield from _check_groups(rig)
    yield from _check_disk(folder)
    yield from _check_shared_memory()
    yield _check_gpu()
    yield from _check_clock()


def _check_python(rig: RigConfig) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 12)
    yield ok("python", version) if fits else fail("python", version, "use Python 3.11 or 3.12")
    kinds = {camera.type for camera in rig.cameras.values()}
    wanted = {"zmq": "robot", "dynamixel_sdk": "robot", "cv2": "robot", "av": "robot", "torch": "robot"}
    wanted |= {"pyrealsense2": "robot"} if "realsense" in kinds else {}
    wanted |= {"mujoco": "sim"} if rig.sim is not None else {}
    missing = {name: extra for name, extra in wanted.items() if importlib.util.find_spec(name) is None}
    for name, extra in missing.items():
        yield fail(f"python.{name}", "not installed", f"`{sys.executable} -m pip install 'aloha-runtime[{extra}]'`")
    if not missing:
        yield ok("python.packages", ", ".join(wanted))


def _check_libraries(rig: RigConfig) -> Iterator[Finding]:
    """System libraries that the wheels expect."""
    wanted = {"libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0"}
    if any(camera.type == "realsense" for camera in rig.cameras.values()):
        wanted["libusb-1.0.so.0"] = "libusb-1.0-0"
    missing = [package for library, package in wanted.items() if not _loads(library)]
    if missing:
        yield fail("libraries", f"missing: {', '.join(missing)}", f"`sudo apt-get install {' '.join(missing)}`")
    else:
        yield ok("libraries", ", ".join(wanted))


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _check_realtime(rig: RigConfig) -> Iterator[Finding]:
    priority = rig.realtime.priority or 1
    remedy = "`sudo aloha install --rig ...` gives units and the group `aloha` the right; log in again after it"
    report = fail if rig.realtime.require else warn
    try:
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        os.sched_setscheduler(0, *before)
        yield ok("realtime.priority", f"SCHED_FIFO {priority} is granted")
    except OSError as error:
        yield report("realtime.priority", f"SCHED_FIFO {priority}: {error.strerror}", remedy)
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY or os.geteuid() == 0:
        yield ok("realtime.memory", "may be locked")
    else:
        yield report("realtime.memory", f"lock is limited to {hard // 1024} KiB (soft {soft // 1024})", remedy)
    available = os.sched_getaffinity(0)
    for key, cores in (("arms_cores", rig.realtime.arms_cores), ("policy_cores", rig.realtime.policy_cores)):
        if absent := sorted(set(cores) - available):
            yield fail(f"realtime.{key}", f"{absent} are not there", f"choose among {sorted(available)}")
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor.is_file() and (found := governor.read_text().strip()) != "performance":
        command = "`echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor`"
        yield warn("cpu.governor", f"{found}: waking up takes longer", command)


def _check_groups(rig: RigConfig) -> Iterator[Finding]:
    """Only devices of a real rig need them, and root needs none."""
    if rig.sim is not None or os.geteuid() == 0:
        return
    mine = {grp.getgrgid(group).gr_name for group in os.getgroups()}
    wanted = [("dialout", "serial adapters"), ("video", "cameras")]
    if rig.stop_input is not None and rig.stop_input.device is not None:
        wanted.append(("input", "the key or pedal of stop_input"))
    for group, what in wanted:
        if group not in mine:
            command = f"`sudo usermod -aG {group} {getpass.getuser()}`, then log in again (units have it)"
            yield warn(f"groups.{group}", f"you may not open {what}", command)


def _check_disk(folder: Path) -> Iterator[Finding]:
    folder = next(up for up in (folder.absolute(), *folder.absolute().parents) if up.is_dir())
    free = shutil.disk_usage(folder).free
    hours = (free - LEAST_FREE_BYTES) / HOUR_BYTES
    value = f"{free / 1e9:.1f} GB free in {folder}, {max(0.0, hours):.1f} hours of recording"
    yield ok("disk.space", value) if hours >= 1 else warn("disk.space", value, "free some, or record elsewhere")
    if free < LEAST_FREE_BYTES + PROBE_BYTES:
        return
    probe = folder / f".aloha-doctor-{os.getpid()}"
    try:
        block = os.urandom(1 << 20)
        begin_ns = time.monotonic_ns()
        with probe.open("wb") as file:
            for _ in range(PROBE_BYTES >> 20):
                file.write(block)
            file.flush()
            os.fdatasync(file.fileno())
        speed = PROBE_BYTES / 1e6 / ((time.monotonic_ns() - begin_ns) / NS_PER_S)
    except OSError as error:
        yield fail("disk.speed", f"cannot write in {folder} ({error.strerror})", "choose another folder, or its owner")
        return
    finally:
        probe.unlink(missing_ok=True)
    value = f"{speed:.0f} MB/s written and synced"
    yield ok("disk.speed", value) if speed >= LEAST_MB_S else warn("disk.speed", value, "record to a faster disk")


def _check_shared_memory() -> Iterator[Finding]:
    free = shutil.disk_usage("/dev/shm").free  # noqa: S108 (looked at only)
    value = f"{free / 1e6:.0f} MB free in /dev/shm"
    if free >= SHARED_MEMORY_BYTES:
        yield ok("shared_memory", value)
    else:
        yield fail("shared_memory", value, "`sudo mount -o remount,size=512m /dev/shm`")


def _check_gpu() -> Finding:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ok("gpu", "none: policies run on the CPU")
    if result.returncode:
        return warn(
            "gpu", f"nvidia-smi fails: {result.stdout.strip() or result.stderr.strip()}", "reinstall its driver"
        )
    return ok("gpu", "; ".join(result.stdout.strip().splitlines()))


def _check_clock() -> Iterator[Finding]:
    """The monotonic clock must never run backwards and tick finely; the wall clock only dates recordings."""
    stamps = [time.monotonic_ns() for _ in range(CLOCK_TRIES)]
    steps = [after - before for before, after in itertools.pairwise(stamps)]
    source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    name = source.read_text().strip() if source.is_file() else "unknown"
    value = f"{name}, a reading costs {sorted(steps)[len(steps) // 2]} ns"
    if min(steps) < 0:
        yield fail("clock.monotonic", f"{name} runs backwards by {-min(steps)} ns", "boot with another clocksource=")
    elif name in ("hpet", "acpi_pm", "jiffies"):
        yield warn("clock.monotonic", f"{value}: a slow clock", "boot with tsc=reliable if the CPU has a stable one")
    else:
        yield ok("clock.monotonic", value)
    query = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    try:
        synchronised = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20).stdout.strip()
    except (FileNotFoundError, subprocess.TimeoutExpired):
        synchronised = ""
    if synchronised == "yes":
        yield ok("clock.wall", "synchronised")
    else:
        state = "not synchronised" if synchronised else "nobody says whether it is synchronised"
        yield warn("clock.wall", f"{state}: recordings may be dated wrongly", "`sudo timedatectl set-ntp true`")
