"""Which answers may still be on their way on one port, so that none of them is taken for the answer to a new question.

A status packet says who answers and how many bytes, not what was asked. So after a question whose answer did not come,
nobody asks for a block of that size again before LATE_NS. Pure.
"""

LATE_NS = 70_000_000
"""No answer comes later than this after its question was given up: the latest seen came 40 ms after its question (an
adapter with a latency timer of 16 ms behind a busy hub), and what waits in the kernel is read once a cycle."""


class LateAnswers:
    """Sizes of blocks, in bytes, that a late answer may have."""

    def __init__(self) -> None:
        self._until_ns: dict[int, int] = {}

    def expect(self, size: int, now_ns: int) -> None:
        """An answer of this size is missing, and may still come."""
        self._until_ns[size] = now_ns + LATE_NS

    def free(self, size: int, now_ns: int) -> bool:
        """Whether no late answer can have this size."""
        return now_ns >= self._until_ns.get(size, 0)
