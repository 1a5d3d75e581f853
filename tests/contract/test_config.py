"""The strict configuration: shipped rigs load, and each mistake is named with file and line."""

from pathlib import Path

import pytest
import yaml

from aloha_runtime import config
from aloha_runtime.errors import ConfigError

SHIPPED = ("sim", "aloha", "aloha2")
SIM = (config.CONFIG_DIR / "sim.yaml").read_text()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_rigs_load_and_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    rig = config.load(name)
    copy = tmp_path / "copy.yaml"
    copy.write_text(yaml.safe_dump(rig.model_dump(mode="json")))
    assert config.load(str(copy)) == rig


LEADER = "leader_left: { port: ttyDXL_leader_left"
MISTAKES = {
    "a gripper of both arms": (("arms_hz: 200", "leader_gripper: {angle_open: 0.4}"), "arms.leader_left.gripper and"),
    "a zero out of reach": ((LEADER, f"{LEADER}, homing_offsets: {{1: 1025}}"), "homing_offsets.1"),
    "a zero of no servo": ((LEADER, f"{LEADER}, homing_offsets: {{10: 3}}"), "homing_offsets.10"),
    "unknown key": (("fps: 50", "fsp: 50"), "unknown key 'cameras.cam_high.fsp'"),
    "wrong word": (("kit: aloha", "kit: aloa"), "kit: "),
    "out of range": (("arms_hz: 200", "arms_hz: 2000"), "arms_hz: "),
    "missing": (("kit: aloha\n", ""), "missing key 'kit'"),
    "given twice": (("name: sim\n", "name: sim\nname: again\n"), "'name' is given twice"),
    "unknown arm": (("follower_left:", "folower_left:"), "folower_left"),
    "not yaml": (("name: sim", "name: [sim"), "not valid YAML"),
    "pose outside the limits": (("arms_hz: 200", "start_pose: [0, -3, 0, 0, 0, 0]"), "shoulder -3.000 rad is outside"),
    "camera of another kind": (("type: sim", "type: opencv, device: /dev/video0"), "cam_high has type 'opencv'"),
    "a day that is none": (("name: sim", "name: 2024-13-45"), "not valid YAML: month must be in 1..12"),
    "too many brackets": (("name: sim", "name: " + 5000 * "["), "not valid YAML: "),
    "a list inside itself": (("arms_hz: 200", "start_pose: &x [*x, 0, 0, 0, 0, 0]"), "start_pose.0"),
    "nothing": ((SIM, ""), "it is empty"),
    "no followers": (("  follower_", "  # "), "name at least one follower"),
    "gripper without travel": (
        (LEADER, f"{LEADER}, gripper: {{angle_open: -0.6842}}"),
        "arms.leader_left.gripper: open and",
    ),
    "gripper that is no number": ((LEADER, f"{LEADER}, gripper: {{position_open: .nan}}"), "position_open"),
    "recorder of a year": (("arms_hz: 200", "flight: {minutes: 500000}"), "flight.minutes"),
    "recorder with a key that is none": (("arms_hz: 200", "flight: {minuts: 5}"), "unknown key 'flight.minuts'"),
    "a name with a rule of udev in it": (
        ("name: sim", 'name: "mine\\nACTION==\\"add\\", RUN+=\\"/bin/sh -c true\\"\\n#"'),
        "name: a name is letters",
    ),
    "a name that ends with a line break": (("name: sim", 'name: "sim\\n"'), "name: a name is letters"),
    "a simulated port that is somebody's file": (
        (LEADER, "leader_left: { port: ../notes.txt"),
        "arms.leader_left.port",
    ),
    "a simulated port that is a lock": ((LEADER, "leader_left: { port: supervisor"), "begins with tty"),
    "a simulated port anywhere": ((LEADER, "leader_left: { port: /home/me/ttyDXL"), "begins with tty"),
    "a model that is none": ((LEADER, f'{LEADER}, models: {{1: "a\\nb"}}'), "arms.leader_left.models.1: a servo model"),
    "a camera that is a pipeline": (
        ("type: sim", 'type: opencv, device: "filesrc location=/etc/passwd ! fakesink"'),
        "cameras.cam_high.device: give the path",
    ),
    "a pedal with a line break": (
        ("arms_hz: 200", 'recording: {pedal: "/dev/a\\nb"}'),
        "recording.pedal: give the whole path",
    ),
    "logs in a folder that climbs": (("arms_hz: 200", "flight: {folder: /var/../etc}"), "flight.folder: give the path"),
    "logs in a folder with a line break": (
        ("arms_hz: 200", 'flight: {folder: "/var\\nReadWritePaths=/"}'),
        "flight.folder: give the path",
    ),
    "a policy's camera with a line break": (
        ("arms_hz: 200", 'policy: {cameras: {"a\\nb": cam_high}}'),
        "a policy's camera name is",
    ),
    "stop that is a key and a line": (
        ("arms_hz: 200", "stop_input: {device: /dev/a, port: /dev/b}"),
        "give either `device`",
    ),
    "stop that is nothing": (("arms_hz: 200", "stop_input: {key: KEY_A}"), "give either `device`"),
    "stop with a key that is none": (
        ("arms_hz: 200", "stop_input: {device: /dev/input/by-id/a-event-kbd, key: KEY_SPACEBAR}"),
        "stop_input.key: unknown key; write a name such as KEY_SPACE",
    ),
    "stop with a number beyond all keys": (("arms_hz: 200", "stop_input: {device: /dev/a, key: 768}"), "1 to 767"),
    "stop with a truth for a key": (("arms_hz: 200", "stop_input: {device: /dev/a, key: true}"), "unknown key"),
    "stop by a relative path": (
        ("arms_hz: 200", "stop_input: {device: event3}"),
        "stop_input.device: give the whole path",
    ),
    "stop by a path that climbs": (("arms_hz: 200", "stop_input: {port: /dev/../etc/x}"), "give the whole path"),
    "stop with a line that is none": (("arms_hz: 200", "stop_input: {port: /dev/a, line: rts}"), "stop_input.line"),
    "stop with a polarity for a key": (
        ("arms_hz: 200", "stop_input: {device: /dev/a, closed_means: stop}"),
        "belong to a `port`",
    ),
    "stop with a key for a line": (("arms_hz: 200", "stop_input: {port: /dev/a, key: 1}"), "belongs to a `device`"),
    "stop with an unknown key": (("arms_hz: 200", "stop_input: {device: /dev/a, keys: 1}"), "'stop_input.keys'"),
    "stop on the adapter of an arm": (
        (
            SIM[SIM.index("arms:") : SIM.index("  follower_right:")],
            "stop_input: { port: /dev/ttyDXL }\narms:\n  follower_left: { port: /dev/ttyDXL }\n",
        ),
        "stop_input.port /dev/ttyDXL is the adapter of follower_left",
    ),
    "stop on the pedal of the recorder": (
        ("arms_hz: 200", "recording: {pedal: /dev/input/p}\nstop_input: {device: /dev/input/p}"),
        "stop_input: any key of /dev/input/p gives orders to the recorder too",
    ),
    "joint that is none": (
        ("arms_hz: 200", "limits: {joints: {left_gripper: {low: 0.1}}}"),
        "limits.joints.left_gripper",
    ),
    "joint wider than the kit's": (
        ("arms_hz: 200", "limits: {joints: {left_elbow: {high: 2.0}}}"),
        "limits.joints.left_elbow: -1.764..2.000 rad is wider than the kit's -1.764..1.605 rad",
    ),
    "joint that cannot reach its poses": (
        ("arms_hz: 200", "limits: {joints: {right_elbow: {high: 1.0}}}"),
        "limits.joints.right_elbow: start_pose has 1.160 rad, outside -1.764..1.000 rad",
    ),
    "joint upside down": (("arms_hz: 200", "limits: {joints: {left_waist: {low: 1, high: -1}}}"), "limits.joints"),
    "policy camera that is only recorded": (
        ("fps: 50 }", "fps: 50, recorded_only: true }\npolicy: {cameras: {top: cam_high}}"),
        "'cam_high', which is `recorded_only`",
    ),
    "crop beyond the picture": (
        ("fps: 50", "fps: 50, crop: [0, 0, 161, 120]"),
        "reaches beyond the picture of 160x120",
    ),
    "policy camera that is absent": (("arms_hz: 200", "policy: {cameras: {top: cam_low}}"), "'cam_low'"),
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_mistakes_name_file_line_and_key(mistake: str, tmp_path: Path) -> None:
    (old, new), expected = MISTAKES[mistake]
    assert old in SIM
    path = tmp_path / "rig.yaml"
    path.write_text(SIM.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        config.load(str(path))
    assert str(caught.value).startswith(f"{path}:")
    assert expected in str(caught.value)


def test_line_of_a_mistake_is_right(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(SIM.replace("fps: 50", "fsp: 50"))
    line = 1 + path.read_text().splitlines().index(next(row for row in path.read_text().splitlines() if "fsp" in row))
    with pytest.raises(ConfigError, match=f"rig.yaml:{line}: "):
        config.load(str(path))


def strings(schema: dict, where: str) -> list[tuple[str, dict]]:
    """Every kind of string that a schema allows anywhere, keys of mappings included."""
    found = [(where, schema)] if schema.get("type") == "string" else []
    for key, part in schema.items():
        if isinstance(part, dict) and key not in ("default", "discriminator"):
            found += strings(part, f"{where}/{key}")
        elif isinstance(part, list) and key in ("anyOf", "oneOf", "allOf", "prefixItems"):
            found += [entry for one in part for entry in strings(one, f"{where}/{key}")]
    return found


@pytest.mark.parametrize("kind", [config.RigConfig, config.TighterLimits])
def test_every_string_of_a_rig_file_is_of_a_kind_that_is_checked(kind: type) -> None:
    """It reaches a path, a unit, a rule, a shell or a log."""
    free = [
        where for where, part in strings(kind.model_json_schema(), "") if not part.keys() & {"pattern", "enum", "const"}
    ]
    assert free == []
    if kind is config.RigConfig:
        assert len(strings(kind.model_json_schema(), "")) > 20


def test_a_real_port_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text((config.CONFIG_DIR / "aloha.yaml").read_text().replace("/dev/ttyDXL_leader_left", "ttyDXL_x"))
    with pytest.raises(ConfigError, match=r"arms.leader_left.port: ttyDXL_x is no path"):
        config.load(str(path))


def test_a_mistake_that_concerns_several_keys_has_the_line_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(SIM + "start_pose: [0, -3, 0, 0, 0, 0]\n")
    line = 1 + SIM.count("\n")
    with pytest.raises(ConfigError, match=f"rig.yaml:{line}: start_pose: shoulder -3.000 rad"):
        config.load(str(path))


def test_one_camera_may_refer_to_another(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(SIM.replace("cam_high: {", "cam_high: &same {") + "")
    text = path.read_text()
    at = text.index("\n", text.index("&same"))
    path.write_text(text[:at] + "\n  cam_low: *same" + text[at:])
    rig = config.load(str(path))
    assert rig.cameras["cam_low"] == rig.cameras["cam_high"]


def test_absent_rig_names_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match="aloha, aloha2, sim"):
        config.load("alohaa")
    with pytest.raises(ConfigError, match="does not exist"):
        config.load("nowhere.yaml")


def test_a_folder_that_may_not_be_entered_is_named(monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(ConfigError, match=r"/root/mine\.yaml lies in a folder that this user may not enter"):
        config.load("/root/mine.yaml")


def test_yaml_cannot_build_objects(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text("name: !!python/object/apply:os.getpid []\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        config.load(str(path))
