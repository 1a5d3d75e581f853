"""What every part of a rig file has in common."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """Unknown keys are refused: a typing mistake must not move an arm."""

    model_config = ConfigDict(extra="forbid", frozen=True)
