"""When two names mean the same queue, or two keys the same job.

Which of a queue's jobs may start next is part of the store's transactions: ``store/admission.py``.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import NoReturn

import msgspec

MAX_NAME = 64 * 1024
"""The longest name in bytes: a name of so many numbers takes 0.1 s to be understood."""

_PLAIN = range(-7, 21)
"""Powers of ten of the first digit for which a number is written without an exponent."""


def canonical_queue_name(raw: bytes) -> bytes:
    """Return the one spelling that all JSON texts of an equal value share; of a dedup's key too.

    Keys are sorted at every depth. Numbers are compared exactly, as decimals: ``1``, ``1.0`` and
    ``1e0`` are one number, two long integers that a double can't tell apart are two.

    :param raw: JSON of an object in which no key stands twice.
    :raises ValueError: if it is not such an object, is longer than `MAX_NAME`, or has a number out
        of a double's range.
    """
    try:
        if len(raw) > MAX_NAME:
            raise ValueError(f"is longer than {MAX_NAME} bytes")
        value = _reader.decode(raw.decode())
        if not isinstance(value, dict):
            raise ValueError("is not a JSON object")
        return msgspec.json.encode(value, order="sorted")
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"it {error}") from error


def _canonical_number(text: str) -> msgspec.Raw:
    mantissa = text.lower().partition("e")[0]
    if not mantissa.strip("-0."):
        return msgspec.Raw(b"0")
    if float(text) == 0 or math.isinf(float(text)):
        raise ValueError("has a number that is out of range")
    number = Decimal(text)
    # Without an exponent a few bytes could be hundreds of zeros.
    style = "f" if number.adjusted() in _PLAIN else "e"
    mantissa, e, exponent = format(number, style).partition("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return msgspec.Raw(f"{mantissa}{e}{exponent}".encode())


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"has {text}, which is not JSON")


_reader = json.JSONDecoder(
    parse_int=_canonical_number, parse_float=_canonical_number, parse_constant=_refuse_constant
)
