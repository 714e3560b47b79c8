"""Where twistd logs to, and how a line of the log is made: as Twisted makes it, at less cost.

For the daemons only; the client library does not import this, or Twisted.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import IO, Any

from twisted.logger import FileLogObserver, LogEvent, formatEventAsClassicLogText
from twisted.python.logfile import LogFile

_ELABORATE = {"log_failure", "log_system", "log_flattened"}


_twistd: Mapping[str, Any] = {}


def use(twistd: Any) -> None:
    """Have twistd make lines of the log with `line_of`.

    :param twistd: its options; what they say of the log otherwise is kept to.
    """
    if twistd is not None and not twistd["logger"] and not twistd["syslog"]:
        global _twistd  # noqa: PLW0603
        _twistd = twistd  # which finds the observer by its name, and tells it nothing
        twistd["logger"] = "harp.logfile.observer"


def observer() -> FileLogObserver:
    """Return what writes the log, as twistd's options say."""
    return FileLogObserver(_log_file(_twistd), line_of)


def line_of(event: LogEvent) -> str | None:
    """Return the line of an event: as `twisted.logger.textFileLogObserver`, which takes 30 µs more.

    A call is told in several lines, so that they would be a tenth of what it costs.
    """
    if not _ELABORATE.isdisjoint(event):
        return formatEventAsClassicLogText(event)
    try:
        text = event["log_format"].format_map(event).replace("\n", "\n\t")
        system = f"{event['log_namespace']}#{event['log_level'].name}"
        stamp = _stamp(int(event["log_time"]))
    except Exception:  # one of Twisted's own that lacks something or has more, or a faulty one
        return formatEventAsClassicLogText(event)
    return f"{stamp} [{system}] {text}\n" if text else None


@lru_cache(1)
def _stamp(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(second))


def _log_file(twistd: Mapping[str, Any]) -> IO[Any]:
    name = twistd["logfile"]
    if name == "-" and not twistd["nodaemon"]:
        sys.exit("a daemon can't log to standard output")
    if name == "-" or (twistd["nodaemon"] and not name):
        return sys.stdout
    file: Any = LogFile.fromFullPath(name or "twistd.log")
    if not signal.getsignal(signal.SIGUSR1):  # as twistd does it

        def rotate(number: int, frame: object) -> None:
            from twisted.internet import reactor  # noqa: PLC0415 - twistd has chosen it by now

            reactor.callFromThread(file.rotate)  # type: ignore[attr-defined]

        signal.signal(signal.SIGUSR1, rotate)
    return file  # type: ignore[no-any-return]
