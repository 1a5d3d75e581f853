"""The size of a JPEG by its own header: looked at before a decoder makes room for it."""

_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF markers (ITU-T T.81, table B.1): tables and reserved codes lie between them."""
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})


def jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """(height, width) that the first frame header says; None for what is no JPEG. Reads headers only."""
    view = memoryview(data)
    if bytes(view[:2]) != b"\xff\xd8":
        return None
    position = 2
    while position + 4 <= len(view):
        if view[position] != 0xFF:
            return None
        marker = view[position + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            position += 1
            continue
        if marker in _WITHOUT_LENGTH:
            position += 2
            continue
        length = int.from_bytes(view[position + 2 : position + 4], "big")
        if marker in _FRAME_HEADERS:
            if length < 8 or position + 9 > len(view):
                return None
            height, width = (int.from_bytes(view[position + at : position + at + 2], "big") for at in (5, 7))
            return height, width
        if marker in (0xD9, 0xDA) or length < 2:  # pixels, or the end, before any size
            return None
        position += 2 + length
    return None
