"""What all requests to the dispatcher have, and the values that several of them use."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Request(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What all requests have: the version of the protocol, always 1.

    :param keepalive: an extension: whether the connection is to stay open for another request
        after the last reply.
    """

    harpcaller: Literal[1]
    keepalive: bool = False
