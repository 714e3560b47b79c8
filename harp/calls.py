"""What a caller's values become in a request, after a check.

Without any I/O; what replies become is ``harp.outcomes``'.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from harp import checks
from harp.secret import SHOWN, Secret
from harp.wire import dispatcher

MAX_KEY = 200
"""The longest idempotency key in characters (protocol page)."""


@dataclass(frozen=True)
class CallOptions:
    """What a call asks for beside its procedure; already checked."""

    queue: dispatcher.QueueOption | None
    timeout: float | None
    max_exec_time: float | None
    info: msgspec.Raw
    idempotency_key: str | None
    dedup: dispatcher.Dedup | None


def call_options(
    queue: dict[str, Any] | None,
    concurrency: int | None,
    timeout: float | None,
    max_exec_time: float | None,
    info: object,
    idempotency_key: str | None = None,
    dedup: dict[str, Any] | None = None,
) -> CallOptions:
    """Check the options of `harp.HarpCaller.host` and freeze them as they are now.

    :raises TypeError: if one has a wrong type.
    :raises ValueError: if one has a wrong value.
    """
    if queue is None and concurrency is not None:
        raise ValueError("concurrency without queue: a job without a queue waits for no other")
    return CallOptions(
        None if queue is None else _queue_option(queue, concurrency),
        None if timeout is None else checks.seconds("timeout", timeout),
        None if max_exec_time is None else checks.seconds("max_exec_time", max_exec_time),
        dispatcher.NULL if info is None else msgspec.Raw(checks.as_json("info", info)),
        None if idempotency_key is None else _idempotency_key(idempotency_key),
        None if dedup is None else _dedup(dedup),
    )


def arguments(
    procedure: str, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> tuple[bytes, bytes | None]:
    """Return the arguments of a call as they go on the wire, and as they may be shown.

    The latter is None if nothing of them is secret.

    :raises TypeError: if there are both kinds of arguments, or JSON can't carry one's type.
    :raises ValueError: if JSON can't carry the value of an argument.
    """
    if args and kwargs:
        raise TypeError(
            f"{procedure}() takes positional or keyword arguments, not both:"
            " the protocol carries a list or an object"
        )
    try:
        return _as_json(f"{procedure}()", kwargs or args)
    except (TypeError, ValueError):
        _blame(procedure, args, kwargs)
        raise


def _blame(procedure: str, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
    """Raise for the one argument that JSON can't carry."""
    for number, value in enumerate(args, start=1):
        _as_json(f"{procedure}(): argument {number}", value)
    for key, value in kwargs.items():
        checks.as_json(f"the name {key!r}", key)
        _as_json(f"{procedure}(): argument {key}", value)


def _as_json(name: str, value: object) -> tuple[bytes, bytes | None]:
    """Return the JSON of arguments, and that of what may be shown; None if nothing is secret.

    No failure tells more of a secret than that JSON can't carry it.
    """
    with suppress(TypeError):  # for a secret, or for what is found again below
        return checks.as_json(name, value), None
    shown = checks.as_json(name, value, _hide)
    failure: type[Exception]
    try:
        return checks.as_json(name, value, _reveal), shown
    except (TypeError, ValueError) as error:
        failure = TypeError if isinstance(error, TypeError) else ValueError
    # Outside of the handler: what was caught has the secret in it.
    raise failure(f"{name}: JSON can't carry the value of a harp.Secret")


def _hide(value: object) -> object:
    return SHOWN if isinstance(value, Secret) else checks.refuse(value)


def _reveal(value: object) -> object:
    return value.value if isinstance(value, Secret) else checks.refuse(value)


def call_request(
    host: str,
    procedure: str,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    options: CallOptions,
) -> dispatcher.Call:
    """Return the request that submits a call.

    :raises TypeError: as `arguments`.
    :raises ValueError: as `arguments`.
    """
    passed, shown = arguments(procedure, args, kwargs)
    return dispatcher.Call(
        harpcaller=1,
        host=host,
        procedure=checks.text("procedure", procedure),
        arguments=msgspec.Raw(passed),
        timeout=options.timeout,
        max_exec_time=options.max_exec_time,
        queue=options.queue,
        info=options.info,
        idempotency_key=options.idempotency_key,
        dedup=options.dedup,
        shown_arguments=msgspec.UNSET if shown is None else msgspec.Raw(shown),
    )


def stream_start(since: int | None, recent: int | None) -> dict[str, Any]:
    """Check where a stream is to be read from.

    :raises TypeError: if one is not a whole number.
    :raises ValueError: if one is negative, or both are given.
    """
    if since is not None and recent is not None:
        raise ValueError("since and recent are two ways to say where to begin: give one of them")
    return {
        "since": None if since is None else checks.count("since", since, 0),
        "recent": None if recent is None else checks.count("recent", recent, 0),
    }


def _queue_option(queue: object, concurrency: int | None) -> dispatcher.QueueOption:
    name = msgspec.Raw(checks.json_object("queue", queue))
    if concurrency is None:
        return dispatcher.QueueOption(name)
    return dispatcher.QueueOption(name, checks.count("concurrency", concurrency, 1))


def _idempotency_key(key: object) -> str:
    text = checks.text("idempotency_key", key)
    if not 1 <= len(text) <= MAX_KEY:
        raise ValueError(f"idempotency_key must have 1 to {MAX_KEY} characters, not {len(text)}")
    return text


def _dedup(dedup: object) -> dispatcher.Dedup:
    if not isinstance(dedup, dict):
        raise TypeError(f"dedup must be a dict, not {type(dedup).__name__}")
    if set(dedup) != {"key", "within"}:
        raise ValueError(
            f"dedup must have the keys 'key' and 'within', not {sorted(dedup, key=str)}"
        )
    return dispatcher.Dedup(
        msgspec.Raw(checks.json_object("dedup['key']", dedup["key"])),
        checks.seconds("dedup['within']", dedup["within"]),
    )
