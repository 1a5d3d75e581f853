"""Keys of the terminal (over SSH as well) and of a foot pedal, as orders to the recorder."""

from collections.abc import Callable
from types import TracebackType

from aloha_runtime.commands.keyboard import STOP_KEY, Keyboard
from aloha_runtime.config import RecordingConfig
from aloha_runtime.errors import ConfigError, HardwareError
from aloha_runtime.hardware.input_device import PRESSED, InputDevice, InputLostError

KEY_ORDERS = {
    STOP_KEY: "stop",
    "n": "next",
    "s": "success",
    "f": "failure",
    "d": "discard",
    "\x7f": "discard",
    "u": "undo",
    "p": "pause",
    "k": "keep",
    "q": "quit",
}
KEYS = (
    "two quick squeezes of both leader grippers end an episode, three throw it away; keys: space STOP, s success,"
    " f failure, d discard, u undo the last, p pause, k keep the last seconds, q quit"
)


class Orders:
    """Reads both without ever waiting; as a context it gives the terminal back as it was."""

    def __init__(self, settings: RecordingConfig, say: Callable[[str], None]) -> None:
        """Raises ConfigError when the rig names a pedal that cannot be read."""
        self._keys = settings.pedal_keys
        self._say = say
        self._pedal: InputDevice | None = None
        self._keyboard = Keyboard()
        if settings.pedal is not None:
            try:
                self._pedal = InputDevice(settings.pedal)
            except HardwareError as error:
                raise ConfigError(f"recording.pedal: {error}") from None

    @property
    def has_keyboard(self) -> bool:
        return self._keyboard.present

    def __enter__(self) -> "Orders":
        try:
            self._keyboard.__enter__()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._keyboard.__exit__(kind, error, trace)
        finally:
            self._close()

    def _close(self) -> None:
        if self._pedal is not None:
            self._pedal.close()
            self._pedal = None

    def take(self) -> list[str]:
        """What was pressed since the last call, oldest first."""
        found = [KEY_ORDERS[key] for key in self._keyboard.pressed() if key in KEY_ORDERS]
        return found + [self._keys[code] for code in self._pressed_pedals() if code in self._keys]

    def _pressed_pedals(self) -> list[int]:
        if self._pedal is None:
            return []
        try:
            return [event.code for event in self._pedal.read() if event.value == PRESSED]
        except InputLostError as error:
            self._say(f"the pedal is gone ({error}); keys and grippers still work")
            self._close()
            return []
