"""Describes a procedure for its callers, in a message that the control socket can carry."""

from __future__ import annotations

import inspect
import json
from itertools import accumulate, takewhile
from typing import Any

from harpd.catalogue import Entry
from harpd.proc import Procedure
from harpd.shapes import Schema

MAX_DOC = 16384
"""The longest docstring in bytes of JSON; a longer one is cut and ends with "…"."""

MAX_SCHEMA = 32768
"""The longest schema in bytes of JSON; parameters that need more are described as any object."""

MAX_SHOWN = 4000
"""The longest list of arguments that may be shown, in bytes of JSON; if it is longer none is."""


def describe(entry: Entry) -> dict[str, Any]:
    """Return what ``describe`` tells of a procedure, as harpd's protocol has it.

    As JSON it is shorter than 60,000 bytes.
    """
    procedure = entry.procedure
    return {
        "name": entry.name,
        "doc": _doc(procedure),
        "streaming": procedure.streaming,
        "timeout": entry.timeout,
        "parameters": _fitting(entry.parameters.schema()),
        "lock": procedure.lock,
        "lock_wait": procedure.lock_wait,
    }


def offer(entry: Entry) -> dict[str, Any]:
    """Return what the network-facing process has to know of a procedure; see `harpd.offers`."""
    found: dict[str, Any] = {"procedure": describe(entry)}
    surroundings = entry.surroundings
    limits = {
        "max_packet": entry.max_packet,
        "max_output": entry.max_output,
        "cpu": None if surroundings is None else surroundings.cpu,
    }
    if limits := {name: limit for name, limit in limits.items() if limit is not None}:
        found["limits"] = limits
    shown = entry.parameters.shown()
    if shown is not None:
        found["shown"] = shown if _size(shown) <= MAX_SHOWN else {}
    return found


def _doc(procedure: Procedure) -> str | None:
    if procedure.function is not None:
        doc = inspect.getdoc(procedure.function)
    else:
        kind = type(procedure)
        doc = vars(procedure).get("__doc__") or kind.__call__.__doc__ or kind.__doc__
        doc = inspect.cleandoc(doc) if isinstance(doc, str) else None
    if not doc:
        return None
    text = doc.encode(errors="backslashreplace").decode()
    return text if _size(text) <= MAX_DOC else _cut(text) + "…"


def _cut(text: str) -> str:
    room = MAX_DOC - _size("…")
    sizes = accumulate(_size(sign) - _size("") for sign in text)
    return text[: sum(1 for _ in takewhile(lambda size: size <= room, sizes))]


def _fitting(schema: Schema) -> Schema:
    try:
        json.dumps(schema, ensure_ascii=False).encode()  # which a lone surrogate is refused by
        fits = _size(schema) <= MAX_SCHEMA
    except ValueError:
        fits = False
    return schema if fits else {"type": "object"}


def _size(value: Any) -> int:
    return len(json.dumps(value))
