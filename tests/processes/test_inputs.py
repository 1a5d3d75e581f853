"""The observation of a tick is what was known when the tick began, whenever its row is written."""

from process_fakes import FakeBus, FakeSubscriber

from aloha_runtime import config, messages
from aloha_runtime.config import CameraConfig
from aloha_runtime.inputs import RigInputs
from aloha_runtime.messages import MS, ArmsState, FrameInfo
from aloha_runtime.robot import TICK_NS

TICK = 1000


class Bus(FakeBus):
    def subscribe(self, topic, depth=1, max_bytes=0) -> FakeSubscriber:
        made = super().subscribe(topic, depth)
        made.wait = made.age_ns = made.close = lambda *_: None
        return made


def frame(stamp_ns: int, value: int) -> FrameInfo:
    return FrameInfo(
        stamp_ns=stamp_ns, camera="cam_high", height=2, width=2, encoding="raw", pixels=bytes([value] * 12)
    )


def test_what_arrives_after_the_tick_began_is_not_in_its_row() -> None:
    camera = CameraConfig(type="sim", width=16, height=16, fps=50)
    rig = config.load("sim").model_copy(update={"cameras": {"cam_high": camera}})
    bus, now_ns = Bus(), TICK * TICK_NS
    inputs = RigInputs(bus, rig, ["cam_high"])
    topic = messages.camera_topic("cam_high", 50)
    state = ArmsState(stamp_ns=now_ns - 5 * MS, position=[0.0] * 14, velocity=[0.0] * 14, effort_ma=[0.0] * 14)
    bus.put(messages.FOLLOWERS, state)
    bus.put(topic, frame(now_ns - 30 * MS, 1))
    inputs.poll()
    inputs.look(TICK)
    bus.put(topic, frame(now_ns - 10 * MS, 2))  # exposed before the tick, on its way when the policy looked
    inputs.poll()
    found, images = inputs.at(TICK)
    assert found.frame_stamps_ns == {"cam_high": now_ns - 30 * MS}
    assert (images["cam_high"] == 1).all()
    without, none = inputs.at(TICK, without=["cam_high"])
    assert (without.frame_stamps_ns, none) == ({}, {})
    found, images = inputs.at(TICK + 1)
    assert (images["cam_high"] == 2).all(), "a tick that nobody looked at in time: what there is"
