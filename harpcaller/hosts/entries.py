"""What a host is, and how lines of JSON become hosts.

A script's lines are read leniently, since it may print for others too; those of a file strictly.
What becomes of a list, and of complaints about it, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from harp.errors import RemoteProtocolError
from harp.fingerprints import read_fingerprint
from harp.logs import shown
from harp.settings import MAX_PORT
from harp.wire.harpd import DEFAULT_PORT
from harp.wire.text import refuse_repeated_keys
from harpcaller import trust

BAD_SERVER_NAME = "must be a DNS name or an IP address"


@dataclass(frozen=True, slots=True)
class Host:
    """A machine where harpd runs.

    Connections made for one serve any other that is equal to it.

    :param name: what calls name it by.
    :param address: a DNS name or an IP address.
    :param tags: words that the operator attached; nothing here depends on them.
    :param server_name: the only name that its certificate may be made out to; if it is None, that
        is ``name`` or ``address``.
    :param fingerprints: if there are any, its certificate must have one of these, as
        `harp.fingerprints` writes them, and nothing else is looked at.
    """

    name: str
    address: str
    port: int
    user: str
    password: str = field(repr=False)
    tags: tuple[str, ...] = ()
    server_name: str | None = None
    fingerprints: tuple[str, ...] = ()


def parse_hosts(lines: bytes, strict: bool = False) -> tuple[dict[str, Host], list[str]]:
    """Understand a JSON object for each host, one to a line.

    :param strict: whether unknown and repeated keys spoil a line, instead of being ignored.
    :return: the hosts by name, in the order of names; what is wrong with the lines that were left
        out, as ``line N: …`` and without any value that stood there.
    """
    decoder = _strict_decoder if strict else _decoder
    hosts: dict[str, Host] = {}
    complaints: list[str] = []
    for number, line in enumerate(lines.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            host = _host(line, decoder, strict)
        except ValueError as error:
            complaints.append(f"line {number}: {error}")
        else:
            if host.name in hosts:
                complaints.append(f"line {number}: its hostname stands in an earlier line too")
            else:
                hosts[host.name] = host
    return dict(sorted(hosts.items())), complaints


def read_fingerprints(texts: Iterable[str]) -> tuple[str, ...]:
    """Return what was written of a host's certificates, as it is compared.

    :raises ValueError: if one is no fingerprint, or there is none.
    """
    found = tuple(map(read_fingerprint, texts))
    if not found:
        # Nobody's would be trusted, or everybody's: the operator must say which.
        raise ValueError("must have at least one")
    return found


class _Credentials(msgspec.Struct):
    user: str
    password: str


class _StrictCredentials(_Credentials, forbid_unknown_fields=True):
    pass


_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Entry(msgspec.Struct, kw_only=True):
    hostname: _Text
    address: _Text
    credentials: _Credentials
    port: Annotated[int, msgspec.Meta(ge=1, le=MAX_PORT)] = DEFAULT_PORT
    tags: tuple[_Text, ...] = ()
    server_name: _Text | None = None
    fingerprint: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.server_name is not None and not trust.is_server_name(self.server_name):
            raise ValueError(f"`server_name` {BAD_SERVER_NAME}")
        self.fingerprints()

    def fingerprints(self) -> tuple[str, ...]:
        """Return them as they are compared.

        :raises ValueError: if one of them is none, or the list of them is empty.
        """
        if self.fingerprint is None:
            return ()
        texts = (self.fingerprint,) if isinstance(self.fingerprint, str) else self.fingerprint
        try:
            return read_fingerprints(texts)
        except ValueError as error:
            raise ValueError(f"`fingerprint` {error}") from None


class _StrictEntry(_Entry, kw_only=True, forbid_unknown_fields=True):
    credentials: _StrictCredentials


_Decoder = msgspec.json.Decoder[_Entry] | msgspec.json.Decoder[_StrictEntry]
_decoder = msgspec.json.Decoder(_Entry)
_strict_decoder = msgspec.json.Decoder(_StrictEntry)


def _host(line: bytes, decoder: _Decoder, strict: bool) -> Host:
    try:
        line.decode()  # msgspec does not look into what it skips
        entry = decoder.decode(line)
        if strict:
            refuse_repeated_keys(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise ValueError("is nested too deep") from error
    except msgspec.DecodeError as error:
        raise ValueError(_told(str(error))) from error
    except RemoteProtocolError as error:
        raise ValueError(error.message) from error
    login = entry.credentials
    return Host(
        entry.hostname,
        entry.address,
        entry.port,
        login.user,
        login.password,
        entry.tags,
        entry.server_name,
        entry.fingerprints(),
    )


def _told(complaint: str) -> str:
    # Somebody may have written {"USER": "PASSWORD"}; all else that msgspec quotes is ours.
    if "unknown field" in complaint and complaint.endswith("`$.credentials`"):
        return "Object contains a field that is neither `user` nor `password` - at `$.credentials`"
    return shown(complaint)
