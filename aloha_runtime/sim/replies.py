"""Replies of emulated servos on their way to the wire, and what several at once make of it."""

Parts = list[tuple[int, bytes]]
"""Replies to one packet in order: (nanoseconds of silence before it, bytes)."""


def on_the_wire(replies: Parts) -> Parts:
    """What servos with one id make of their replies: the line is low where one of them pulls it low, and they are never
    at one another to the bit. So the second comes a byte later, and nothing of that can be read."""
    if len(replies) < 2:
        return replies
    delay_ns, wire = replies[0]
    for _, reply in replies[1:]:
        length = max(len(wire), len(reply) + 1)
        shifted = (b"\xff" + reply).ljust(length, b"\xff")
        wire = bytes(one & other for one, other in zip(wire.ljust(length, b"\xff"), shifted, strict=True))
    return [(delay_ns, wire)]
