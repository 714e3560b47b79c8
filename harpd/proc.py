"""What the authors of procedures import: the decorators, and the container of an end result.

Only marks the functions; `harpd.catalogue` finds and checks them, `harpd.child` runs them. It is
loaded into the process that every call is forked from, so it imports as little as it can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

Groups = str | int | Sequence[str | int]


class Result:
    """The end result of a streaming procedure: ``yield Result(value)`` ends it.

    :param value: anything that JSON can carry.
    """

    def __init__(self, value: Any) -> None:
        self.value = value


class Procedure:
    """A function that can be called from outside; what it returns is the end result.

    :param timeout: the longest run in seconds, None for no limit.
    :param uid: name or number of the user it runs as, None for the daemon's own.
    :param gid: name or number of the group it runs with, or a list whose first is the primary and
        whose rest are the supplementary groups. None takes the groups of ``uid``.
    """

    streaming = False

    def __init__(
        self,
        function: Callable[..., Any],
        timeout: float | None = None,
        uid: str | int | None = None,
        gid: Groups | None = None,
    ) -> None:
        self.function = function
        self.timeout = timeout
        self.uid = uid
        self.gid = gid
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function as if it were not marked."""
        return self.function(*args, **kwargs)


class StreamingProcedure(Procedure):
    """A procedure that yields packets, and perhaps a `Result` last."""

    streaming = True


_Decorator = Callable[[Callable[..., Any]], Procedure]


@overload
def procedure(function: Callable[..., Any], /) -> Procedure: ...
@overload
def procedure(
    *,
    timeout: float | None = None,
    uid: str | int | None = None,
    gid: Groups | None = None,
) -> _Decorator: ...
def procedure(
    function: Callable[..., Any] | None = None, /, **options: Any
) -> Procedure | _Decorator:
    """Mark a function as a procedure, bare or with the options of `Procedure`."""
    return _mark(Procedure, function, options)


@overload
def streaming_procedure(function: Callable[..., Any], /) -> Procedure: ...
@overload
def streaming_procedure(
    *,
    timeout: float | None = None,
    uid: str | int | None = None,
    gid: Groups | None = None,
) -> _Decorator: ...
def streaming_procedure(
    function: Callable[..., Any] | None = None, /, **options: Any
) -> Procedure | _Decorator:
    """Mark a generator function as a streaming procedure, bare or with the options."""
    return _mark(StreamingProcedure, function, options)


def _mark(
    kind: type[Procedure], function: Callable[..., Any] | None, options: dict[str, Any]
) -> Procedure | _Decorator:
    def decorate(function: Callable[..., Any]) -> Procedure:
        return kind(function, **options)

    return decorate if function is None else decorate(function)
