"""What happens around a checkpoint's network, step by step, as `aloha preflight` prints it."""

from collections.abc import Iterator

from aloha_runtime.act.header import Header
from aloha_runtime.commands.findings import Finding, ok

INSIDE = "none in files, as of LeRobot up to 0.3: normalised as config.json says"


def steps(header: Header) -> Iterator[Finding]:
    """The steps before and after the network in their order, each with its settings, and what the network is not given.

    There is nothing to judge: a step that is not carried out as LeRobot does it has been refused before.
    """
    processing = header.processing
    yield ok("steps.before", " -> ".join(processing.before) or INSIDE)
    yield ok("steps.after", " -> ".join(processing.after) or INSIDE)
    for name, given in processing.renamed.items():
        yield ok(f"steps.{name.removeprefix('observation.')}", f"is given {given}")
    if header.dropped:
        yield ok("inputs.dropped", f"{', '.join(header.dropped)}: the network has no weights for them")
