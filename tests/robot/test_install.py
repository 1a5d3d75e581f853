"""Installing and taking away again, in a tree: what is written, what is left alone, and what systemd says of it."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from power_cut import watch

from aloha_runtime import config
from aloha_runtime.commands import install_files, install_udev
from aloha_runtime.commands.install import install, refuse_unfit, uninstall
from aloha_runtime.commands.install_units import Wanted, unit_name, units
from aloha_runtime.config import RigConfig, StopInputConfig
from aloha_runtime.errors import AlohaError, ConfigError
from aloha_runtime.processes.table import Job, processes

UNITS = "etc/systemd/system"
DEPLOY = Wanted(Job.DEPLOY, "demo")


def tree(root: Path) -> dict[str, bytes | str]:
    """Every file and link below a root."""
    found = [path for path in root.rglob("*") if path.is_symlink() or path.is_file()]
    return {str(p.relative_to(root)): str(p.readlink()) if p.is_symlink() else p.read_bytes() for p in found}


def test_units_are_those_of_the_table(tmp_path: Path) -> None:
    for rig, job in (("aloha", Job.TELEOP), ("aloha", Job.DEPLOY), ("sim", Job.DEMONSTRATE)):
        loaded = config.load(rig)
        written = units(loaded, Wanted(job, "demo"))
        names = {unit_name(process.name) for process in processes(loaded, job, "demo")}
        target = written["aloha.target"]
        assert set(re.search(r"^Wants=(.*)$", target, re.M)[1].split()) == names  # type: ignore[index]
        files = {re.sub(r"@.*\.", "@.", name) for name in names}
        assert set(written) == files | {"aloha.target", "aloha-off.target"}


def test_every_unit_runs_as_its_own_user_fed_by_its_loop_and_restarted() -> None:
    for name, text in units(config.load("aloha"), DEPLOY).items():
        if name.endswith(".service"):
            for line in ("Type=notify", "User=aloha", "NoNewPrivileges=yes", "RuntimeDirectoryMode=0700"):
                assert f"\n{line}\n" in text, name
            assert "\nPrivateNetwork=yes\n" in text, name
            assert "\nLimitRTPRIO=50\n" in text, name
            assert "$" not in text.replace("$$", ""), name


SANDBOX = {
    "CapabilityBoundingSet": "",
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateMounts": "yes",
    "PrivateDevices": "yes",
    "DevicePolicy": "closed",
    "PrivateUsers": "yes",
    "PrivateIPC": "yes",
    "PrivateNetwork": "yes",
    "IPAddressDeny": "any",
    "RestrictAddressFamilies": "AF_UNIX",
    "ProtectClock": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    "ProtectControlGroups": "yes",
    "ProtectProc": "invisible",
    "ProcSubset": "pid",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallFilter": "@system-service ~@privileged",
    "SystemCallErrorNumber": "EPERM",
    "User": "aloha",
    "Group": "aloha",
    "UMask": "0077",
    "LimitCORE": "0",
    "RuntimeDirectoryMode": "0700",
    # What only a fragment may give.
    "AmbientCapabilities": None,
    "DeviceAllow": None,
    "SupplementaryGroups": None,
    "ReadWritePaths": None,
    "StateDirectoryMode": None,
    "IPAddressAllow": None,
    "SocketBindAllow": None,
    "SocketBindDeny": None,
}
"""Every directive that keeps a process in, by name; several values as one text. None: not there."""
ADDS_UP = ("DeviceAllow", "IPAddressDeny", "RestrictAddressFamilies", "SystemCallFilter", "SupplementaryGroups")
"""Directives whose lines add to one another (an empty one starts over); of all others the last line counts."""
COMPILES = {"MemoryDenyWriteExecute": "no", "ProcSubset": "all"}
USB_CAMERA = {"PrivateDevices": "no", "DeviceAllow": "char-video4linux rw", "SupplementaryGroups": "video"}
LOOSER: dict[str, dict[str, str]] = {
    "arms": {
        "PrivateDevices": "no",
        "DeviceAllow": "char-ttyUSB rw char-ttyACM rw",
        "SupplementaryGroups": "dialout",
        "ProcSubset": "all",
    },
    "policy": {
        **COMPILES,
        "PrivateDevices": "no",
        "DeviceAllow": "char-nvidia* rw char-drm rw",
        "SupplementaryGroups": "video",
    },
    "flight": {"ReadWritePaths": "-/var/lib/aloha/logs", "StateDirectoryMode": "0700"},
    "recorder": {"ReadWritePaths": "/srv/cups"},
    "metrics": {
        "PrivateNetwork": "no",
        "RestrictAddressFamilies": "AF_UNIX AF_UNIX AF_INET",
        "IPAddressAllow": "localhost",
        "SocketBindDeny": "any",
        "SocketBindAllow": "ipv4:tcp:9200",
    },
}
"""By module: what its sandbox has beside or instead of `SANDBOX`. The cameras' and the simulated ones' are below."""


def settings(unit: str) -> dict[str, str]:
    """What systemd makes of the lines of a unit."""
    found: dict[str, str] = {}
    for line in unit.splitlines():
        name, equals, value = line.partition("=")
        if equals and re.fullmatch(r"[A-Za-z]+", name):
            found[name] = f"{found.get(name, '')} {value}".strip() if name in ADDS_UP and value else value
    return found


def module_of(unit: str) -> str:
    return re.sub(r"^aloha-|[@.].*", "", unit)


def assert_sandboxed(rig: config.RigConfig, wanted: Wanted, looser: dict[str, dict[str, str]]) -> set[str]:
    """Every directive of every unit; returns the modules."""
    written = {name: text for name, text in units(rig, wanted).items() if name.endswith(".service")}
    for name, text in written.items():
        found = settings(text)
        expected = {**SANDBOX, **looser.get(module_of(name), {})}
        assert {directive: found.get(directive) for directive in expected} == expected, name
    return {module_of(name) for name in written}


def test_every_unit_is_in_the_sandbox_directive_by_directive() -> None:
    rig = config.load("aloha").model_copy(update={"metrics_port": 9200})
    recorded = Wanted(Job.DEPLOY, "demo", "/srv/cups", "cups")
    camera = {
        "realsense": {
            **USB_CAMERA,
            "DeviceAllow": "char-video4linux rw char-usb_device rw",
            "RestrictAddressFamilies": "AF_UNIX AF_UNIX AF_NETLINK",
        },
        "opencv": USB_CAMERA,
    }
    for kind, its in camera.items():
        one = next(iter(rig.cameras.values())).model_copy(update={"type": kind, "device": "/dev/CAM", "serial": "1"})
        only = rig.model_copy(update={"cameras": {"cam_high": one}})
        modules = assert_sandboxed(only, recorded, {**LOOSER, "camera": its})
        assert modules >= {"arms", "camera", "policy", "supervisor", "flight", "recorder", "metrics"}
    simulated = dict.fromkeys(("world", "chain", "demonstrator", "camera"), COMPILES)
    modules = assert_sandboxed(config.load("sim"), Wanted(Job.DEMONSTRATE), {**LOOSER, **simulated})
    assert modules >= {*simulated, "guard", "teleop"}


def test_the_recorder_may_write_its_logs_and_nothing_else() -> None:
    rig = config.load("aloha")
    assert rig.flight is not None
    unit = units(rig, DEPLOY)["aloha-flight.service"]
    assert "\nStateDirectory=aloha/logs\n" in unit
    assert "\nReadWritePaths=-/var/lib/aloha/logs\n" in unit
    elsewhere = rig.model_copy(update={"flight": rig.flight.model_copy(update={"folder": "/srv/my logs"})})
    assert '\nReadWritePaths=-"/srv/my logs"\n' in units(elsewhere, DEPLOY)["aloha-flight.service"]


def test_cores_come_from_the_rig_file() -> None:
    rig = config.load("aloha")
    rig = rig.model_copy(update={"realtime": rig.realtime.model_copy(update={"arms_cores": [2, 3]})})
    written = units(rig, DEPLOY)
    assert "\nCPUAffinity=2 3\n" in written["aloha-arms@.service"]
    assert "CPUAffinity" not in written["aloha-policy.service"]


def test_stopping_begins_with_the_supervisor_which_parks_the_arms() -> None:
    supervisor = units(config.load("aloha"), DEPLOY)["aloha-supervisor.service"]
    after = re.search(r"^After=(.*)$", supervisor, re.M)
    assert after is not None
    assert {"aloha-arms@followers.service", "aloha-policy.service"} <= set(after[1].split())
    assert "cli down --run-dir /run/aloha" in supervisor


def with_stop(**settings: str) -> RigConfig:
    return config.load("aloha").model_copy(update={"stop_input": StopInputConfig(**settings)})


def test_the_supervisor_may_read_its_stop_and_nothing_else() -> None:
    kinds = {
        "key": (with_stop(device="/dev/input/by-id/usb-a-event-kbd"), {"char-input r"}, "input"),
        "line": (with_stop(port="/dev/ttyUSB9"), {"char-ttyUSB rw", "char-ttyACM rw", "char-ttyS rw"}, "dialout"),
        "none": (config.load("aloha"), set(), None),
    }
    for rig, devices, group in kinds.values():
        text = units(rig, DEPLOY)["aloha-supervisor.service"]
        assert set(re.findall(r"^DeviceAllow=(.*)$", text, re.M)) == devices
        assert re.findall(r"^SupplementaryGroups=(.*)$", text, re.M) == ([group] if group else [])
        assert "\nDevicePolicy=closed\n" in text
        assert re.findall(r"^PrivateDevices=(.*)$", text, re.M)[-1] == ("no" if group else "yes")


def test_udev_lets_the_supervisor_read_its_stop() -> None:
    def rule(**settings: str) -> list[str]:
        return [line for line in install_udev.rules(with_stop(**settings)).splitlines() if line.startswith("SUBS")]

    key, line = "/dev/input/by-id/usb-a-event-kbd", "/dev/serial/by-id/usb-a-port0"
    assert rule(device=key) == ['SUBSYSTEM=="input", KERNEL=="event*", GROUP="input", MODE="0660"']
    assert rule(device="/dev/aloha-stop", serial="P1") == [
        'SUBSYSTEM=="input", KERNEL=="event*", ATTRS{serial}=="P1", SYMLINK+="aloha-stop", GROUP="input", MODE="0660"'
    ]
    assert rule(port=line) == []
    assert rule(port=line, serial="A5") == [
        'SUBSYSTEM=="tty", ATTRS{serial}=="A5", ENV{ID_MM_DEVICE_IGNORE}="1", GROUP="dialout", MODE="0660"'
    ]
    unnamed = install_udev.unnamed(with_stop(port="/dev/aloha-stop"))
    assert "stop_input" in unnamed
    assert "stop_input" not in install_udev.unnamed(with_stop(port=line))


def test_a_network_only_for_cameras_that_are_on_one() -> None:
    rig = config.load("aloha")
    remote = rig.cameras["cam_high"].model_copy(update={"device": "http://127.0.0.1:8080/stream"})
    rig = rig.model_copy(update={"cameras": {**rig.cameras, "cam_high": remote}})
    open_units = [name for name, text in units(rig, DEPLOY).items() if "\nPrivateNetwork=no\n" in text]
    assert open_units == ["aloha-camera@.service"]


def test_a_second_installation_changes_nothing_and_uninstall_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "etc/udev").mkdir(parents=True)
    install("aloha", DEPLOY, tmp_path, dry_run=False)
    first = tree(tmp_path)
    assert {"etc/aloha/rig.yaml", f"{UNITS}/aloha.target", "etc/udev/rules.d/60-aloha.rules"} <= set(first)
    install("aloha", DEPLOY, tmp_path, dry_run=False)
    assert tree(tmp_path) == first
    uninstall(tmp_path, dry_run=False)
    assert tree(tmp_path) == {}
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["etc", "etc/udev"]  # it was there


def test_another_job_takes_the_units_of_the_one_before_away(tmp_path: Path) -> None:
    install("aloha", DEPLOY, tmp_path, dry_run=False)
    install("aloha", Wanted(Job.TELEOP), tmp_path, dry_run=False)
    assert not (tmp_path / UNITS / "aloha-policy.service").exists()
    assert (tmp_path / UNITS / "aloha-teleop.service").exists()


def test_a_dry_run_writes_nothing_and_shows_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install("aloha", DEPLOY, tmp_path, dry_run=True)
    assert tree(tmp_path) == {}
    said = capsys.readouterr().out
    install("aloha", DEPLOY, tmp_path, dry_run=False)
    for path in install_files.manifest(tmp_path).files:
        assert f"/{path}: " in said


def test_what_somebody_changed_is_neither_overwritten_nor_removed(tmp_path: Path) -> None:
    install("aloha", DEPLOY, tmp_path, dry_run=False)
    changed = tmp_path / UNITS / "aloha-policy.service"
    changed.write_text("mine")
    with pytest.raises(ConfigError, match=r"aloha-policy\.service is not as this command wrote it"):
        install("aloha", DEPLOY, tmp_path, dry_run=False)
    uninstall(tmp_path, dry_run=False)
    assert set(tree(tmp_path)) == {f"{UNITS}/aloha-policy.service"}
    with pytest.raises(AlohaError, match="nothing is installed"):
        uninstall(tmp_path, dry_run=False)


@pytest.mark.parametrize("link", ["etc", "etc/systemd", "etc/aloha", "usr/local/bin"])
def test_no_link_below_the_root_is_followed(tmp_path: Path, link: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    (root / link).parent.mkdir(parents=True)
    (root / link).symlink_to(outside)
    with pytest.raises(AlohaError, match=f"{link} is a link"):
        install("aloha", DEPLOY, root, dry_run=False)
    assert list(outside.iterdir()) == []


def test_uninstall_follows_no_link_that_was_put_in_its_way(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    install("aloha", DEPLOY, root, dry_run=False)
    (root / "etc/udev/rules.d").rename(outside)
    (root / "etc/udev/rules.d").symlink_to(outside)
    before = tree(outside)
    assert before
    uninstall(root, dry_run=False)
    assert tree(outside) == before


@pytest.mark.parametrize("listed", ["../notes.txt", "/etc/passwd", "etc/../../notes.txt"])
def test_a_manifest_that_lists_files_elsewhere_is_refused(tmp_path: Path, listed: str) -> None:
    root, notes = tmp_path / "root", tmp_path / "notes.txt"
    notes.write_text("mine")
    install("aloha", DEPLOY, root, dry_run=False)
    manifest = root / install_files.MANIFEST
    found = msgspec.json.decode(manifest.read_bytes())
    found["files"][listed] = hashlib.sha256(b"mine").hexdigest()
    manifest.write_bytes(msgspec.json.encode(found))
    with pytest.raises(AlohaError, match="does not lie inside"):
        uninstall(root, dry_run=False)
    assert notes.read_text() == "mine"


def test_an_installation_that_was_cut_off_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("aloha", Wanted(Job.TELEOP), tmp_path, dry_run=False)
    publish, count = install_files._publish, 0

    def cut_off(root: Path, path: str, content: bytes | Path) -> None:
        nonlocal count
        count += 1
        if count > 2:
            raise KeyboardInterrupt
        publish(root, path, content)

    monkeypatch.setattr(install_files, "_publish", cut_off)
    with pytest.raises(KeyboardInterrupt):
        install("aloha", DEPLOY, tmp_path, dry_run=False)
    monkeypatch.undo()
    install("aloha", DEPLOY, tmp_path, dry_run=False)
    uninstall(tmp_path, dry_run=False)
    assert tree(tmp_path) == {}


def test_an_installation_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = watch(tmp_path, monkeypatch)
    install("aloha", DEPLOY, tmp_path, dry_run=False)
    assert cut.hurried == []
    assert cut.lost() == []


def test_what_cannot_run_unattended_is_refused(tmp_path: Path) -> None:
    rig = config.load("aloha")
    for wanted, why in (
        (Wanted(Job.DEPLOY), "--checkpoint"),
        (Wanted(Job.DEMONSTRATE), "cannot run unattended"),
        (Wanted(Job.TELEOP, dataset=str(tmp_path)), "belong together"),
        (Wanted(Job.TELEOP, dataset=str(tmp_path), task="t"), "no dataset yet"),
    ):
        with pytest.raises(ConfigError, match=why):
            refuse_unfit(wanted, rig)


def test_nothing_from_a_rig_file_becomes_a_directive_or_a_rule() -> None:
    rig = config.load("aloha").model_copy(update={"name": "x\nExecStart=/bin/evil %n $y"})
    written = units(rig, Wanted(Job.TELEOP, dataset="/var/lib/d", task='say "hi" for 5 $ and 3 %'))
    assert not any(line.startswith("ExecStart=/bin/evil") for text in written.values() for line in text.splitlines())
    assert '"say \\"hi\\" for 5 $$ and 3 %%"' in written["aloha-recorder.service"]
    with pytest.raises(ConfigError, match="control characters"):
        units(rig, Wanted(Job.TELEOP, dataset="/var/lib/d", task="a\nExecStart=/bin/evil"))
    arm = rig.arms["leader_left"].model_copy(update={"port": '/dev/x", RUN+="/bin/evil', "serial": "FT1"})
    with pytest.raises(ConfigError, match="no name that udev can give"):
        install_udev.rules(rig.model_copy(update={"arms": {**rig.arms, "leader_left": arm}}))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_no_mistake_and_the_sandboxes_are_tight(tmp_path: Path) -> None:
    for name, text in {
        **units(config.load("sim"), Wanted(Job.DEMONSTRATE)),
        **units(with_stop(device="/dev/input/by-id/usb-a-event-kbd"), DEPLOY),
    }.items():
        (tmp_path / name.replace("@.", "@x.")).write_text(text)
    files = sorted(tmp_path.iterdir())
    verified = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False)
    assert (verified.stderr, verified.returncode) == ("", 0)
    services = [path for path in files if path.suffix == ".service"]
    command = ["systemd-analyze", "security", "--offline=yes", "--no-pager"]
    rated = subprocess.run([*command, *services], capture_output=True, text=True, check=False)
    found = dict(re.findall(r"exposure level for aloha-([^@.:]*)[^:]*: ([\d.]+)", rated.stdout))
    assert len(re.findall("exposure level", rated.stdout)) == len(services), rated.stderr
    devices = {"arms", "camera", "policy", "supervisor"}  # those that need some are less closed; here STOP is a pedal
    assert {name: score for name, score in found.items() if float(score) > (0.6 if name in devices else 0.4)} == {}


def test_the_rules_name_every_device_for_its_group_alone() -> None:
    """The text of the rules, whole: an adapter answers at once, is left alone by ModemManager, and is its group's."""
    rig = config.load("aloha")
    arm = rig.arms["follower_left"].model_copy(update={"port": "/dev/ttyDXL_x", "serial": "FT1"})
    usb = next(iter(rig.cameras.values())).model_copy(update={"type": "opencv", "device": "/dev/CAM_X", "serial": "C1"})
    real = usb.model_copy(update={"type": "realsense", "device": None, "serial": "R1"})
    some = rig.model_copy(update={"arms": {"follower_left": arm}, "cameras": {"cam_high": usb, "cam_low": real}})
    written = [line for line in install_udev.rules(some).splitlines() if line and not line.startswith("#")]
    assert written == [
        'SUBSYSTEM=="tty", ATTRS{serial}=="FT1", SYMLINK+="ttyDXL_x", ENV{ID_MM_DEVICE_IGNORE}="1", '
        'ATTR{device/latency_timer}="1", GROUP="dialout", MODE="0660"',
        'SUBSYSTEM=="video4linux", ATTRS{serial}=="C1", ATTR{index}=="0", SYMLINK+="CAM_X", GROUP="video", MODE="0660"',
        'SUBSYSTEM=="usb", ATTR{idVendor}=="8086", GROUP="video", MODE="0660"',
    ]
