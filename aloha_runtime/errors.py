"""Errors that an operator reads. Every message names what failed (arm, camera, file), the value, and what to do."""


class AlohaError(Exception):
    """Base of every error that is shown as one line instead of a traceback; the command exits with `exit_code`."""

    exit_code = 1


class ConfigError(AlohaError):
    """A configuration file is wrong: names the file, the line, the key and the value."""

    exit_code = 2


class HardwareError(AlohaError):
    """An arm, servo, camera or its port does not answer or is not what the configuration says."""

    exit_code = 3


class CheckpointError(AlohaError):
    """A policy checkpoint is absent, damaged, of the wrong kind, or made for another robot."""

    exit_code = 4


class DatasetError(AlohaError):
    """A dataset is absent, damaged, or does not fit what it is to be used for."""

    exit_code = 5


class TransportError(AlohaError):
    """A run directory, topic or shared-memory ring cannot be used (taken, absent, or full)."""

    exit_code = 6


class SimulationError(AlohaError):
    """The simulated rig cannot run here (no off-screen GL, unknown task, ...)."""

    exit_code = 7


class LogError(AlohaError):
    """A log of the flight recorder is absent or damaged."""

    exit_code = 8


class ProcessError(AlohaError):
    """A process of the system could not start or gave up; the command exits with the process's own code."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class ArmsStopped(AlohaError):  # noqa: N818 (the arms did what they should)
    """The arms went into HOLD or FAULT by themselves: names the mode and the cause."""


class ShutDown(AlohaError):  # noqa: N818 (it is none)
    """An operator ended the system with `aloha down`: no failure."""

    exit_code = 0
