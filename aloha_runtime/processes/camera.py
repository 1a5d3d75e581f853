"""camera@NAME: one camera's frames, stamped at exposure, into shared memory."""

from aloha_runtime import messages
from aloha_runtime.hardware.base import Camera
from aloha_runtime.hardware.picture import with_stage
from aloha_runtime.realtime import Histogram
from aloha_runtime.rings import FramePublisher
from aloha_runtime.service import Service, run

BELOW_ARMS = 20
"""A frame may wait for the arms, and for nothing else on the machine."""
FROZEN_FRAMES = 10
"""A sensor's noise changes every picture; so many that are the same to the last bit come from a camera that hangs. They
are not passed on, and every reader finds this camera stale."""
READ_TIMEOUT_S = 0.1
"""A camera silent this long has missed frames even at 10 fps; the health report says so."""


def build(service: Service) -> Camera:
    """The camera that the rig's configuration names, its pictures turned, cropped and resized as it says."""
    return with_stage(_source(service), service.rig.cameras[service.instance])


def _source(service: Service) -> Camera:
    """Only the camera's own library is imported."""
    name = service.instance
    source = service.rig.cameras[name]
    if source.type == "realsense":
        from aloha_runtime.hardware.realsense import RealSenseCamera

        return RealSenseCamera(name, source)
    if source.type == "opencv":
        from aloha_runtime.hardware.opencv import OpenCVCamera

        return OpenCVCamera(name, source)
    from aloha_runtime.sim.camera import SimCamera

    return SimCamera(name, source, service.rig, service.bus, service.clock)


def main(service: Service) -> None:
    source = service.rig.cameras[service.instance]
    camera = build(service)
    try:
        camera.connect()
        if said := ", ".join(f"{name} {value:g}" for name, value in camera.controls.items()):
            service.log.info("controls, as read back: %s", said)
        topic = messages.camera_topic(service.instance, source.fps)
        pass_on(service, camera, FramePublisher(service.bus, topic, (*source.shape, 3)))
    finally:
        camera.disconnect()


def pass_on(service: Service, camera: Camera, publisher: FramePublisher) -> None:
    """Every frame once, as it comes, until the process is told to stop."""
    figures = {"frames": 0, "missed": 0, "frozen": 0}
    last_sequence = 0
    delay = Histogram()
    while not service.stopping:
        frame = camera.read(READ_TIMEOUT_S)
        frozen = camera.identical_frames >= FROZEN_FRAMES
        figures["frozen"] += frozen
        if frame is not None and not frozen:
            publisher.send(frame.image, frame.stamp_ns)
            figures["frames"] += 1
            figures["missed"] += max(0, frame.sequence - last_sequence - 1) if last_sequence else 0
            last_sequence = frame.sequence
            delay.add(service.clock.now_ns() - frame.stamp_ns)
        service.report(
            lambda: {
                **figures,
                "exposure_to_published_p50_ms": delay.p50_ns / messages.MS,
                "exposure_to_published_p99_ms": delay.p99_ns / messages.MS,
            },
            ok=frame is not None and not frozen,
            message=_trouble(camera, frame is not None),
        )


def _trouble(camera: Camera, came: bool) -> str:
    if not came:
        return f"no frame for {READ_TIMEOUT_S:.1f} s"
    count = camera.identical_frames
    return (
        f"the same picture {count} times in a row: unplug the camera and plug it in" if count >= FROZEN_FRAMES else ""
    )


if __name__ == "__main__":
    run(main)
