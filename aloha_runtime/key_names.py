"""Names of the keys of keyboards, pedals, mice and game controllers, as Linux has them (input-event-codes.h).

A key without a name here is given in a rig file by its number, which `evtest` prints when it is pressed.
"""

HIGHEST_CODE = 0x2FF
"""KEY_MAX of Linux."""
_RUNS: dict[int, str] = {
    1: "ESC 1 2 3 4 5 6 7 8 9 0 MINUS EQUAL BACKSPACE TAB Q W E R T Y U I O P LEFTBRACE RIGHTBRACE ENTER LEFTCTRL "
    "A S D F G H J K L SEMICOLON APOSTROPHE GRAVE LEFTSHIFT BACKSLASH Z X C V B N M COMMA DOT SLASH RIGHTSHIFT "
    "KPASTERISK LEFTALT SPACE CAPSLOCK F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 NUMLOCK SCROLLLOCK KP7 KP8 KP9 KPMINUS KP4 KP5 "
    "KP6 KPPLUS KP1 KP2 KP3 KP0 KPDOT",
    86: "102ND F11 F12",
    96: "KPENTER RIGHTCTRL KPSLASH SYSRQ RIGHTALT LINEFEED HOME UP PAGEUP LEFT RIGHT END DOWN PAGEDOWN INSERT DELETE "
    "MACRO MUTE VOLUMEDOWN VOLUMEUP POWER KPEQUAL KPPLUSMINUS PAUSE",
    125: "LEFTMETA RIGHTMETA COMPOSE STOP",
    163: "NEXTSONG PLAYPAUSE PREVIOUSSONG STOPCD",
    183: "F13 F14 F15 F16 F17 F18 F19 F20 F21 F22 F23 F24",
    223: "CANCEL",
}
"""Of `KEY_...`: the first code of a run, and the names from there on."""
_BUTTONS: dict[int, str] = {
    256: "0 1 2 3 4 5 6 7 8 9",
    272: "LEFT RIGHT MIDDLE SIDE EXTRA FORWARD BACK TASK",
    288: "TRIGGER THUMB THUMB2 TOP TOP2 PINKIE BASE BASE2 BASE3 BASE4 BASE5 BASE6",
    304: "SOUTH EAST C NORTH WEST Z TL TR TL2 TR2 SELECT START MODE THUMBL THUMBR",
}
"""The same of `BTN_...`."""

KEY_CODES: dict[str, int] = {
    f"{prefix}_{name}": first + index
    for prefix, runs in (("KEY", _RUNS), ("BTN", _BUTTONS))
    for first, names in runs.items()
    for index, name in enumerate(names.split())
}
"""`KEY_A` -> 30."""
_NAMES = {code: name for name, code in KEY_CODES.items()}


def key_name(code: int) -> str:
    """Name of a key, or its number where it has none here."""
    return _NAMES.get(code, f"key {code}")
