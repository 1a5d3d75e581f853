"""One thing that is wrong with a dataset."""

from dataclasses import dataclass

COPY = "restore the file from a copy of the dataset, or take the episode out: `aloha dataset delete`"


@dataclass(frozen=True)
class Finding:
    """`where`: file or episode; `what` is wrong, with the value; `remedy`: what to do."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.remedy[0].upper()}{self.remedy[1:]}."
