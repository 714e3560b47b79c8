"""Where twistd logs to, and what a line of the log is: one JSON object, fit for a terminal too.

``{"time", "level", "logger", "message"}``, with ``audit`` in a line that tells who did what
(`harp.logs.audit`) and ``traceback`` in one of a failure. For the daemons only; the client library
does not import this, or Twisted.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import IO, Any

import msgspec
from twisted.logger import FileLogObserver, LogEvent, formatEvent
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile

_ESCAPED = {
    code: f"\\u{code:04x}"
    for codes in (range(0x7F, 0xA0), range(0x2028, 0x202F), range(0x2066, 0x206A))
    for code in codes
}
"""Control characters that JSON leaves alone, those that turn the direction of text among them
(Unicode's general categories Cc, Zl and Zp; bidirectional controls, Unicode annex 9)."""

_NOT_TEXT = {code: f"\\ud{code - 0xD000:03x}" for code in range(0xD800, 0xE000)}

_encode = msgspec.json.Encoder().encode

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
    """Return the line of an event, None if it says nothing.

    A call is told in several lines, so a line is made with few steps.
    """
    try:
        text = event["log_format"].format_map(event)
    except Exception:  # Twisted's older way, or a faulty one
        text = formatEvent(event)
    failure = event.get("log_failure")
    if not text and failure is None:
        return None
    level = event.get("log_level")
    seconds = event.get("log_time")
    line = {
        "time": _stamp(time.time() if seconds is None else seconds),
        "level": "info" if level is None else level.name,
        "logger": event.get("log_namespace") or str(event.get("log_system", "-")),
        "message": text,
    }
    if "audit" in event:
        line["audit"] = event["audit"]
    if failure is not None:
        line["traceback"] = _traceback(failure)
    return _json(line) + "\n"


def _json(line: dict[str, Any]) -> str:
    try:
        written = _encode(line).decode()
    except UnicodeEncodeError:  # halves of characters, as in names of files
        told = {
            key: value.translate(_NOT_TEXT) if isinstance(value, str) else str(value)
            for key, value in line.items()
        }
        written = _encode(told).decode()
    return written if written.isprintable() else written.translate(_ESCAPED)


def _traceback(failure: object) -> str:
    try:
        return failure.getTraceback() if isinstance(failure, Failure) else str(failure)
    except Exception as error:  # what it tells of can't be printed
        return f"{type(error).__name__} in the telling"


def _stamp(seconds: float) -> str:
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@lru_cache(1)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


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
