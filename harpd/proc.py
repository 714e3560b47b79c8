"""What the authors of procedures import: the decorators, and what a stream consists of.

Only marks the functions; `harpd.catalogue` finds and checks them, `harpd.child` runs them. It is
loaded into the process that every call is forked from, so it imports as little as it can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, TypeVar, Unpack, overload

Groups = str | int | Sequence[str | int]


SECRET = object()
"""Marks a hint: ``Annotated[str, SECRET]`` is the same as ``Secret[str]``."""

if TYPE_CHECKING:
    T = TypeVar("T", default=str)
else:
    T = TypeVar("T")

Secret = Annotated[T, SECRET]
"""The type hint of a parameter whose argument must not be shown: ``password: Secret`` is a text,
``Secret[dict[str, str]]`` an object.

The procedure gets the plain value. harpd writes it into no log and no error message, ``describe``
marks the parameter, and a dispatcher that asks for it learns what it may show of the arguments.
What the procedure prints, raises or returns is its own business. It stands around the whole hint of
a parameter, perhaps with ``| None``; of ``*args`` and ``**kwargs`` it means all."""


class Result:
    """The end result of a streaming procedure: ``yield Result(value)`` ends it.

    :param value: anything that JSON can carry.
    """

    def __init__(self, value: Any) -> None:
        self.value = value


def progress(
    done: float, total: float | None = None, unit: str | None = None
) -> dict[str, dict[str, float | str]]:
    """Return a packet that says how far a streaming procedure is.

    It is there to be yielded: ``yield progress(3, 10, "files")``. Programs that follow the
    job, as the command ``harp`` does, may show it as a progress bar. It is a packet like any other:
    recorded, replayed, and counted by ``max_output``.

    :param done: how much has been done.
    :param total: how much there is to do, if that is known; ``done`` may exceed an estimate.
    :param unit: what is counted, such as "files" or "bytes".
    :return: ``{"progress": {"done": …, "total": …, "unit": …}}``, without what is not said.
    :raises TypeError: if one is no number or text.
    :raises ValueError: if a number is negative or not finite, or the unit is empty.
    """
    said: dict[str, float | str] = {"done": _amount("done", done)}
    if total is not None:
        said["total"] = _amount("total", total)
    if unit is not None:
        if not isinstance(unit, str):
            raise TypeError(f"progress: unit must be a text, not {unit!r}")
        if not unit.strip():
            raise ValueError("progress: unit is empty")
        said["unit"] = unit
    return {"progress": said}


def _amount(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"progress: {name} must be a number, not {value!r}")
    if not 0 <= value < float("inf"):
        raise ValueError(f"progress: {name} must be a finite number from 0, not {value!r}")
    return value


class Options(TypedDict, total=False):
    """The options of the decorators, which are those of `Procedure`."""

    timeout: float | None
    uid: str | int | None
    gid: Groups | None
    context: bool | str | None
    lock: str | None
    lock_wait: float | None
    address_space: float | None
    cpu: float | None
    open_files: float | None
    processes: float | None
    max_packet: float | None
    max_output: float | None
    umask: int | None
    directory: str | None
    environment: Mapping[str, str] | None


class Procedure:
    """Something that can be called from outside; what it returns is the end result.

    Either a function is given, or a subclass has a ``__call__`` of its own. An instance in a global
    variable is a procedure with the variable's name.

    Where its parameters have type hints the arguments must fit them: None, bool, int (which True
    and 1.0 do not fit), float (which 1 fits), str, list, Sequence, tuple, dict, Mapping, TypedDict
    (with no key that it does not name), unions, Literal, Annotated and NewType. A default of None
    fits too. Hints of other kinds are not checked. A function gets the values as JSON gave them: a
    list where the hint says tuple.

    An option that is None, or not given, is not said: then an attribute of the class says it, else
    (all but context, lock and lock_wait) the defaults of harpd's configuration, else the first
    value named below. For every limit ``math.inf`` says that there is none, whatever the default.

    :param timeout: no limit, or the longest run in seconds.
    :param uid: the daemon's own user, or the name or number of the user it runs as;
        ``os.getuid()`` says the daemon's own, whatever the default.
    :param gid: the groups of the user, or the name or number of the group it runs with, or a list
        whose first is the primary and whose rest are the supplementary groups. The default for
        ``gid`` holds only where no ``uid`` is said either: a user comes with his own groups.
    :param context: nothing, or the name of the parameter that gets the context of the call; True
        for one with the name ``context``. The context is a dict with "user" (the login at harpd),
        "client" (the address that the call came from) and what the caller says beside, like
        "job_id". A caller can't give an argument for this parameter.
    :param lock: nothing, or the name of a lock: of the calls whose procedures name it, on this
        machine, one runs at a time.
    :param lock_wait: for ever, or the seconds to wait for the lock, after which the call fails; 0
        fails at once.
    :param address_space: no limit, or the bytes that each process of the call may have mapped
        (RLIMIT_AS); beyond it Python raises MemoryError.
    :param cpu: no limit, or the seconds of processor time that each process of the call may use
        (RLIMIT_CPU). Then an exception runs the procedure's ``finally``, for which there are 5 s
        more, and the call ends with ``limit_exceeded``.
    :param open_files: no limit, or the descriptors that each process of the call may have open
        (RLIMIT_NOFILE).
    :param processes: no limit, or how many processes and threads the user whom ``uid`` names may
        have, all that there are of his counted, on the whole machine (RLIMIT_NPROC). The kernel
        does not limit root's.
    :param max_packet: no limit but that of the protocol, or the bytes of JSON of one packet.
    :param max_output: no limit, or the bytes of JSON of all packets and of the end result. A call
        that exceeds either ends with ``limit_exceeded``.
    :param umask: 0o022, or another.
    :param directory: ``/``, or the absolute path of the working directory.
    :param environment: nothing, or variables beside those that every call has: PATH, LANG, SHELL,
        those of the defaults, and HOME, USER and LOGNAME of the user it runs as. What has the same
        name is replaced.
    """

    streaming = False
    function: Callable[..., Any] | None = None
    timeout: float | None = None
    uid: str | int | None = None
    gid: Groups | None = None
    context: bool | str = False
    lock: str | None = None
    lock_wait: float | None = None
    address_space: float | None = None
    cpu: float | None = None
    open_files: float | None = None
    processes: float | None = None
    max_packet: float | None = None
    max_output: float | None = None
    umask: int | None = None
    directory: str | None = None
    environment: Mapping[str, str] | None = None

    def __init__(
        self,
        function: Callable[..., Any] | None = None,
        /,
        **options: Unpack[Options],
    ) -> None:
        for name in options.keys() - Options.__annotations__.keys():
            raise TypeError(f"{type(self).__name__}() got an unexpected keyword argument {name!r}")
        vars(self).update((name, value) for name, value in options.items() if value is not None)
        if function is not None:
            self.function = function
            self.__doc__ = function.__doc__

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function as if it were not marked."""
        if self.function is None:
            raise TypeError(f"{type(self).__name__} has neither a function nor a __call__")
        return self.function(*args, **kwargs)


class StreamingProcedure(Procedure):
    """A procedure that yields packets, and perhaps a `Result` last."""

    streaming = True


_Decorator = Callable[[Callable[..., Any]], Procedure]


@overload
def procedure(function: Callable[..., Any], /) -> Procedure: ...
@overload
def procedure(**options: Unpack[Options]) -> _Decorator: ...
def procedure(
    function: Callable[..., Any] | None = None, /, **options: Unpack[Options]
) -> Procedure | _Decorator:
    """Mark a function as a procedure, bare or with the options of `Procedure`."""
    return _mark(Procedure, function, options)


@overload
def streaming_procedure(function: Callable[..., Any], /) -> Procedure: ...
@overload
def streaming_procedure(**options: Unpack[Options]) -> _Decorator: ...
def streaming_procedure(
    function: Callable[..., Any] | None = None, /, **options: Unpack[Options]
) -> Procedure | _Decorator:
    """Mark a generator function as a streaming procedure, bare or with the options."""
    return _mark(StreamingProcedure, function, options)


def _mark(
    kind: type[Procedure], function: Callable[..., Any] | None, options: Options
) -> Procedure | _Decorator:
    def decorate(function: Callable[..., Any]) -> Procedure:
        return kind(function, **options)

    return decorate if function is None else decorate(function)
