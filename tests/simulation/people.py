"""Who calls in the simulation, and what of their calls is secret."""

from __future__ import annotations

import hashlib
from random import Random

import msgspec

from harp.wire import dispatcher as wire
from harpcaller.identities import User, Users

PANEL = User("panel", is_trusted=True)
JOE = User("joe")
NAMES = ["panel", "joe", "ann"]

USERS = Users(
    known=(PANEL, JOE),
    tokens={hashlib.sha256(user.name.encode()).hexdigest(): user for user in (PANEL, JOE)},
)
"""The token of each is its name."""

MARKED, DECLARED = b"marked-", b"declared-"
"""What secrets begin with, of which the client says so and of which harpd does."""

_SECRETIVE = "s"
"""The procedure with a secret parameter."""


def anybody(random: Random) -> wire.Auth | None:
    """Return who asks."""
    token = random.choice([None, None, JOE.name, PANEL.name, PANEL.name])
    if token is None:
        return None
    behalf = random.choice([None, "joe", "ann"]) if token == PANEL.name else None
    return wire.Auth(token, behalf)


def whose(call: wire.Call) -> tuple[str | None, str | None]:
    """Return the submitter of a call, and for whom it is."""
    return (None, None) if call.auth is None else (call.auth.token, call.auth.on_behalf_of)


def with_arguments(call: wire.Call, number: int, random: Random) -> wire.Call:
    """Return a call with arguments, of which the first one is its number."""
    roll = random.random()
    if roll < 0.6:
        return msgspec.structs.replace(call, arguments=msgspec.Raw(b"[%d]" % number))
    procedure = _SECRETIVE if roll < 0.9 else call.procedure
    if roll < 0.7:  # only harpd knows
        arguments = b'[%d,"%b%d-"]' % (number, DECLARED, number)
        return msgspec.structs.replace(call, procedure=procedure, arguments=msgspec.Raw(arguments))
    arguments = b'[%d,"%b%d-"]' % (number, MARKED, number)
    shown = random.choice([told(number), b'["(secret)","(secret)"]'])
    return msgspec.structs.replace(
        call,
        procedure=procedure,
        arguments=msgspec.Raw(arguments),
        shown_arguments=msgspec.Raw(shown),
    )


def told(number: int) -> bytes:
    """Return the arguments of a call as harpd shows them."""
    return b'[%d,"(secret)"]' % number


def acknowledged_with(call: wire.Call, number: int) -> bytes | None:
    """Return what harpd says of a call's arguments in its acknowledgement."""
    return told(number) if call.procedure == _SECRETIVE else None


def is_secret_until_told(call: wire.Call) -> bool:
    """Say whether only harpd knows of a call's secret."""
    return DECLARED in bytes(call.arguments)
