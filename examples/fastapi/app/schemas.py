"""What goes in and out."""

from typing import Any

from pydantic import BaseModel, Field

import harp


class Order(BaseModel):
    """What is to be backed up."""

    database: str = Field(min_length=1, max_length=64)


class Backup(BaseModel):
    """What the application itself knows of a backup."""

    job_id: str
    database: str


class Failure(BaseModel):
    """What went wrong, and what to do about it."""

    message: str
    remedy: str | None
    may_have_run: bool

    @classmethod
    def of(cls, error: harp.HarpException) -> "Failure":
        """Return what an exception of the client tells."""
        return cls(message=str(error), remedy=error.remedy, may_have_run=error.may_have_run)


class State(BaseModel):
    """What the dispatcher knows of a backup now."""

    state: str
    result: Any = None
    error: Failure | None = None
