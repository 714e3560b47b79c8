"""Moments and lengths of time as people write and read them on a command line."""

from __future__ import annotations

import math
import re
import time
from datetime import datetime

import click

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LENGTH = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw]?)")


def read_length(_: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Read a length of time: seconds, or a number with ``s``, ``m``, ``h``, ``d`` or ``w``.

    :return: seconds.
    """
    if text is None:
        return None
    seconds = _seconds(text)
    if seconds is None:
        raise click.BadParameter(
            f"{text!r} is no length of time such as 90, 15m, 2h or 30d", param=parameter
        )
    return seconds


def read_moment(_: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Read a moment: so long ago, or a date, or date and time in the zone of this machine.

    :return: unix seconds.
    """
    if text is None:
        return None
    seconds = _seconds(text)
    if seconds is not None and not text.isdecimal():
        return time.time() - seconds
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise click.BadParameter(
            f"{text!r} is no moment such as 2h (ago), 2026-11-23 or 2026-11-23T14:30",
            param=parameter,
        ) from error


def _seconds(text: str) -> float | None:
    found = _LENGTH.fullmatch(text)
    if found is None:
        return None
    seconds = float(found[1]) * _UNITS[found[2]]
    return seconds if math.isfinite(seconds) else None


def brief(seconds: float) -> str:
    """Return about how long that is, in at most four characters where it is less than 27 years."""
    whole = max(0, int(seconds))
    for unit, limit in (("s", 100), ("m", 100), ("h", 100)):
        if whole // _UNITS[unit] < limit:
            return f"{whole // _UNITS[unit]}{unit}"
    return f"{whole // _UNITS['d']}d"
