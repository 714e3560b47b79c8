"""What all requests to the dispatcher have, and the values that several of them use."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Auth(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """An extension: who asks, as far as the connection does not tell.

    :param token: the bearer token of a user.
    :param on_behalf_of: the name of the person for whom a trusted application asks.
    """

    token: str | None = None
    on_behalf_of: Name | None = None


class Request(msgspec.Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True):
    """What all requests have: the version of the protocol, always 1.

    :param auth: an extension: who asks. It stands at the beginning of the line, so that it can be
        checked before all of a long line has come.
    :param keepalive: an extension: whether the connection is to stay open for another request
        after the last reply.
    """

    harpcaller: Literal[1]
    auth: Auth | None = None
    keepalive: bool = False
