"""For the authors of procedures: runs them as harpd would, in tests that need no daemon.

The procedures are loaded by a real zygote and each call runs in a process of its own, with the
checks, limits and surroundings that harpd gives it; its outcome is what a client of harpd gets. It
blocks, and needs neither a network nor a Twisted reactor, so it goes with any test runner.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

from harp import calls, checks, outcomes
from harp.errors import CancelledException
from harp.outcomes import CALL_CANCELLED
from harp.settings import ConfigError
from harpd.calls_config import load_settings
from harpd.lone_call import LoneCall
from harpd.lone_calls import LoneCalls
from harpd.lone_zygote import ZYGOTE, LoneZygote
from harpd.offers import ProceduresError
from harpd.options import Defaults
from harpd.zygote import Settings
from harpd.zygote_command import zygote_settings

__all__ = ["Call", "Caller", "ConfigError", "Outcome", "Procedures", "ProceduresError", "call"]

LOAD_LIMIT = 60.0
"""Seconds in which the procedures must have been loaded, as in harpd."""

MAX_EXEC_TIME = 60.0
"""Seconds after which a call is ended if its test says nothing else."""

_STANDARD_ERROR = 2


@dataclass(frozen=True)
class Outcome:
    """What came of a call, as a client sees it.

    :param result: what ``job.result(wait=True)`` returns: the procedure's result, decoded from its
        JSON; a `harp.RemoteException` with what it raised; a `harp.RemoteError` if it could not be
        carried out; `harp.CALL_CANCELLED`.
    :param packets: what a streaming procedure has yielded, decoded from its JSON.
    :param printed: what the call has printed, which goes to harpd's log; at most its first MiB.
    """

    result: Any
    packets: list[Any]
    printed: str

    def get(self) -> Any:
        """Return the result as ``job.get()`` does.

        :raises harp.RemoteException: if the procedure raised.
        :raises harp.RemoteError: if the call could not be carried out.
        :raises harp.CancelledException: if it was cancelled.
        """
        if self.result is CALL_CANCELLED:
            raise CancelledException("the call was cancelled")
        return outcomes.value_of(self.result)


class Call:
    """A call that was started. It goes on while the test waits for something of `Procedures`.

    To iterate over it waits for its packets, as a follower does, and stops with its end.
    """

    def __init__(self, calls: LoneCalls, call: LoneCall) -> None:
        self._calls = calls
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        packets = self._call.packets
        for number in itertools.count():
            self._calls.run(partial(self._is_known, number))
            if number == len(packets):
                return
            yield outcomes.decode_payload(packets[number])

    def _is_known(self, number: int) -> bool:
        """Tell whether this packet has come, or none will."""
        return len(self._call.packets) > number or self._call.is_over

    def cancel(self) -> None:
        """End the call as a client's ``job.cancel()`` does: TERM, and KILL after the grace.

        A call that has ended stays as it is.
        """
        self._calls.cancel(self._call)

    def wait(self) -> Outcome:
        """Wait until its process is gone and return what came of it."""
        self._calls.run(lambda: self._call.is_over)
        is_refusal = self._call.offer is None
        return Outcome(
            outcomes.outcome(self._call.end, outcomes.DIRECT, is_refusal),
            [outcomes.decode_payload(packet) for packet in self._call.packets],
            self._call.printed.decode(errors="backslashreplace"),
        )


class Caller:
    """Who calls: what harpd would know of him, and how long his calls may run."""

    def __init__(self, calls: LoneCalls, context: bytes, max_exec_time: float) -> None:
        self._calls = calls
        self._context = context
        self._max_exec_time = max_exec_time

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Outcome:
        """Run a procedure and return what came of it, see `start`."""
        return self.start(name, *args, **kwargs).wait()

    def start(self, name: str, /, *args: Any, **kwargs: Any) -> Call:
        """Start a call, to read its packets as they come or to cancel it.

        :param name: of the procedure.
        :param args: positional arguments; there may be only one kind, as in every client.
        :param kwargs: arguments by keyword.
        :raises TypeError: if there are both kinds, or JSON can't carry one's type.
        :raises ValueError: if JSON can't carry the value of an argument.
        """
        arguments, _ = calls.arguments(checks.text("name", name), args, kwargs)
        call = self._calls.start(name, arguments, self._context, self._max_exec_time)
        return Call(self._calls, call)


class Procedures:
    """A procedures file that is loaded, to be used in a ``with`` block or to be closed.

    A procedure runs as the user that it names only where the tests run as root; elsewhere it stays
    who runs them, whether that user is known there or not, and its limit of processes is left out.
    All else is as in harpd.

    :param file: the procedures file.
    :param config: harpd's configuration; of it ``python``, ``defaults`` and ``kill_grace`` count.
    :param path: folders with modules that the procedures import, before those of the configuration.
    :param defaults: options for procedures that don't say them, over those of the configuration.
    :param kill_grace: seconds between TERM and KILL; None is what the configuration says, or 5.
    :raises ProceduresError: with every mistake in the file, one sentence each in ``mistakes``.
    :raises ConfigError: with every mistake in that part of the configuration.
    :raises TypeError: if an option that ``defaults`` names is none.
    """

    def __init__(
        self,
        file: str | PathLike[str],
        config: str | PathLike[str] | None = None,
        *,
        path: Sequence[str | PathLike[str]] = (),
        defaults: Mapping[str, Any] | None = None,
        kill_grace: float | None = None,
    ) -> None:
        settings = _settings(Path(file), config, path, defaults or {}, kill_grace)
        sys.stderr.flush()
        module = ZYGOTE if os.geteuid() == 0 else "harpd.unprivileged"
        self._zygote = LoneZygote(settings, _STANDARD_ERROR, module)
        try:
            offers = self._zygote.load(LOAD_LIMIT)
        except BaseException:
            self._zygote.close()
            raise
        self._calls: LoneCalls | None = LoneCalls(self._zygote, offers, settings.kill_grace)

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Outcome:
        """Run a procedure and return what came of it, see `Caller.call`."""
        return self.caller().call(name, *args, **kwargs)

    def start(self, name: str, /, *args: Any, **kwargs: Any) -> Call:
        """Start a call, to read its packets as they come or to cancel it, see `Caller.start`."""
        return self.caller().start(name, *args, **kwargs)

    def caller(
        self,
        user: str = "tester",
        client: str = "127.0.0.1",
        context: Mapping[str, Any] | None = None,
        max_exec_time: float = MAX_EXEC_TIME,
    ) -> Caller:
        """Return somebody who calls.

        :param user: the login at harpd, "user" in the context.
        :param client: the address that the call comes from, "client" in the context.
        :param context: what a dispatcher adds to the context, such as ``{"job_id": "…"}``.
        :param max_exec_time: the longest run in seconds, as in the client.
        """
        if self._calls is None:
            raise ValueError("these procedures are closed")
        known = {
            **(context or {}),
            "user": checks.text("user", user),
            "client": checks.text("client", client),
        }
        limit = checks.seconds("max_exec_time", max_exec_time)
        return Caller(self._calls, checks.as_json("context", known), limit)

    def close(self) -> None:
        """End all calls and the process that has the procedures loaded. It may be called twice."""
        if self._calls is not None:
            calls, self._calls = self._calls, None
            calls.close()
            self._zygote.close()

    def __enter__(self) -> Procedures:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def call(file: str | PathLike[str], name: str, /, *args: Any, **kwargs: Any) -> Outcome:
    """Run one procedure of a file and return what came of it, see `Procedures` and `Caller`."""
    with Procedures(file) as procedures:
        return procedures.call(name, *args, **kwargs)


def _settings(
    file: Path,
    config: str | PathLike[str] | None,
    path: Sequence[str | PathLike[str]],
    defaults: Mapping[str, Any],
    kill_grace: float | None,
) -> Settings:
    known = {field.name for field in fields(Defaults)}
    for name in defaults:
        if name not in known:
            raise TypeError(f"defaults: {name!r} is none of {', '.join(sorted(known))}")
    if isinstance(path, str | PathLike):
        raise TypeError("path must be a list of folders, not one")
    procedures = str(file.absolute())
    if config is None:
        settings = zygote_settings(procedures, [])
    else:
        settings = load_settings(Path(config).absolute(), procedures)
    return zygote_settings(
        procedures,
        [*(str(Path(folder).absolute()) for folder in path), *settings.path],
        settings.kill_grace if kill_grace is None else checks.seconds("kill_grace", kill_grace),
        {**settings.defaults, **defaults},
    )
