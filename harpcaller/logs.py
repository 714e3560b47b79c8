"""The dispatcher's loggers, whose level its configuration sets."""

from __future__ import annotations

from twisted.logger import (
    FilteringLogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogPublisher,
)

LEVELS = ("debug", "info", "warn", "error", "critical")

_levels = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
_observer = FilteringLogObserver(globalLogPublisher, [_levels])


def logger(namespace: str) -> Logger:
    """Return a logger that obeys `set_level`."""
    return Logger(namespace, observer=_observer)


def set_level(level: str) -> None:
    """Log nothing below this level from now on.

    :param level: one of `LEVELS`.
    """
    _levels.setLogLevelForNamespace("", LogLevel.levelWithName(level))
