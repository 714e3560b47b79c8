"""What a benchmark found, beside its goal and its limit: as a row of the table and as JSON."""

from __future__ import annotations

import os
import platform
import sqlite3
import ssl
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

RATE = "/s"
"""The one unit of which more is better."""

_ROW = "{:<17} {:>12} {:>15} {:>12} {:>7}  {:<6}  {}"
_MET = {True: "met", False: "MISSED", None: ""}
_LIBRARIES = ("Twisted", "pyOpenSSL", "msgspec", "SQLAlchemy")


class WrongResultError(Exception):
    """What was measured did not do what it is for."""


@dataclass(frozen=True)
class Limit:
    """What the machine can do at most, measured in the same run.

    :param value: in the unit of the figure beside it.
    :param what: what was done to find it.
    """

    value: float
    what: str


@dataclass(frozen=True)
class Figure:
    """One figure.

    :param goal: what it is to reach: at least for a rate, at most for everything else.
    :param goal_ratio: what its ratio to the limit is to reach, in the same sense.
    """

    name: str
    value: float
    unit: str
    limit: Limit
    goal: float | None = None
    goal_ratio: float | None = None

    @property
    def ratio(self) -> float:
        """The figure divided by its limit."""
        return self.value / self.limit.value

    @property
    def met(self) -> bool | None:
        """Whether all its goals are reached; None if it has none."""
        sign = 1 if self.unit == RATE else -1
        pairs = ((self.value, self.goal), (self.ratio, self.goal_ratio))
        goals = [(value, goal) for value, goal in pairs if goal is not None]
        return all(sign * value >= sign * goal for value, goal in goals) if goals else None

    def row(self) -> str:
        """Return it as a row of the table."""
        return _ROW.format(
            self.name,
            _text(self.value, self.unit),
            self._goals(),
            _text(self.limit.value, self.unit),
            f"{self.ratio:.3f}" if self.ratio < 1 else f"{self.ratio:.1f}",
            _MET[self.met],
            self.limit.what,
        ).rstrip()

    def as_json(self) -> dict[str, Any]:
        """Return it as values that JSON has."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "goal": self.goal,
            "goal_ratio": self.goal_ratio,
            "met": self.met,
            "limit": self.limit.value,
            "limit_is": self.limit.what,
            "ratio": self.ratio,
        }

    def _goals(self) -> str:
        sign = "≥" if self.unit == RATE else "≤"
        goals = []
        if self.goal is not None:
            goals.append(f"{sign} {_text(self.goal, '')}")
        if self.goal_ratio is not None:
            goals.append(f"{sign} {self.goal_ratio:g}x")
        return ", ".join(goals)


def head() -> str:
    """Return the table's head."""
    return _ROW.format("name", "figure", "goal", "limit", "ratio", "", "the limit is")


def machine() -> dict[str, Any]:
    """Return where and with what the figures are made."""
    return {
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {
            "sqlite": sqlite3.sqlite_version,
            "openssl": ssl.OPENSSL_VERSION,
            **{name: version(name) for name in _LIBRARIES},
        },
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _text(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"  # noqa: PLR2004
    return f"{number} {unit}" if unit and unit != RATE else f"{number}{unit}"
