"""When two names mean the same queue.

Which of a queue's jobs may start next is part of the store's transactions: ``store/queues.py``.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import NoReturn

import msgspec


def canonical_queue_name(raw: bytes) -> bytes:
    """Return the one spelling that all JSON texts of an equal value share.

    Keys are sorted at every depth. Numbers are compared exactly, as decimals: ``1``, ``1.0`` and
    ``1e0`` are one number, two long integers that a double can't tell apart are two.

    :param raw: JSON of an object in which no key stands twice.
    :raises ValueError: if it is not such an object, or has a number out of a double's range.
    """
    try:
        name = _reader.decode(raw.decode())
        if not isinstance(name, dict):
            raise ValueError("a queue's name must be a JSON object")
        return msgspec.json.encode(name, order="sorted")
    except RecursionError as error:
        raise ValueError("the queue's name is nested too deep") from error


def _canonical_number(text: str) -> msgspec.Raw:
    mantissa = text.lower().partition("e")[0]
    if not mantissa.strip("-0."):
        return msgspec.Raw(b"0")
    # Without this limit a few bytes of exponent would ask for gigabytes of zeros.
    if float(text) == 0 or math.isinf(float(text)):
        raise ValueError("a number in the queue's name is out of range")
    plain = format(Decimal(text), "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return msgspec.Raw(plain.encode())


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} in the queue's name is not JSON")


_reader = json.JSONDecoder(
    parse_int=_canonical_number, parse_float=_canonical_number, parse_constant=_refuse_constant
)
