"""Episodes as people name them: `3`, `7-9`, `3 7-9`."""

from collections.abc import Sequence

from aloha_runtime.errors import DatasetError


def select(words: Sequence[str], total: int) -> list[int]:
    """The episodes that `words` name, in order; all when there are none. DatasetError for what is not there."""
    if not words:
        return list(range(total))
    found: set[int] = set()
    for word in " ".join(words).replace(",", " ").split():
        first, dash, last = word.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise DatasetError(f"{word!r} names no episode: write a number (3) or a range (7-9)")
        start, stop = int(first), int(last) if dash else int(first)
        if stop < start or stop >= total:
            there = f"0 to {total - 1}" if total else "none"
            raise DatasetError(f"there is no episode {word}: the dataset has {there}. Nothing was changed.")
        found.update(range(start, stop + 1))
    return sorted(found)
