"""How a program gets into a dispatcher: with TLS or not, and who it says it is.

The options of `harp.HarpCaller` become checked values here; nothing is read or sent.
"""

from __future__ import annotations

import os
from os import PathLike

from harp import checks
from harp.network import Address, Trust
from harp.wire import dispatcher

Certificate = str | PathLike[str] | tuple[str | PathLike[str], str | PathLike[str]]
"""The path of a PEM file with a certificate and its key, or the paths of two files."""

MAX_NAME = 200
"""The longest name of a person in characters (protocol page)."""

MAX_TOKEN = 1000
"""The longest token in characters. What says who asks must stand near the beginning of a line."""


def trust(
    address: Address,
    tls: bool | None,
    ca_file: str | PathLike[str] | None,
    cert: Certificate | None,
    server_name: str | None,
) -> Trust | None:
    """Return whom a dispatcher's certificate must come from, None where it is spoken to without.

    :raises TypeError: if an option has a wrong type.
    :raises ValueError: if the options contradict each other.
    """
    options = {"ca_file": ca_file, "cert": cert, "server_name": server_name}
    given = [name for name, value in options.items() if value is not None]
    if tls is None:
        tls = bool(given)
    if not isinstance(tls, bool):
        raise TypeError(f"tls must be True, False or None, not {type(tls).__name__}")
    if not tls:
        if given:
            raise ValueError(f"{given[0]} with tls=False: it would not be looked at")
        return None
    if address.path is not None:
        what = given[0] if given else "tls"
        raise ValueError(f"{what} with {address}: there is no TLS on a unix socket")
    own = None if cert is None else _files(cert)
    return Trust(ca_file, address.host if server_name is None else server_name, True, own)


def auth(
    address: Address,
    is_secured: bool,
    token: str | None,
    on_behalf_of: str | None,
    insecure: bool,
) -> dispatcher.Auth | None:
    """Return what each request says of who asks, None if there is nothing to say.

    :raises TypeError: if an option has a wrong type.
    :raises ValueError: if one has a wrong value, or the token would be sent where others can read
        it.
    """
    if token is not None:
        _check_token(token)
        if not (is_secured or insecure or address.is_this_machine):
            raise ValueError(
                f"{address}: the token would be sent unencrypted to another machine: give ca_file"
                " or tls=True, or insecure=True to send it all the same"
            )
    if on_behalf_of is not None:
        person("on_behalf_of", on_behalf_of)
    if token is None and on_behalf_of is None:
        return None
    return dispatcher.Auth(token, on_behalf_of)


def person(name: str, value: object) -> str:
    """Return the name of a person after a check."""
    text = checks.text(name, value)
    if not 1 <= len(text) <= MAX_NAME:
        raise ValueError(f"{name} must have 1 to {MAX_NAME} characters, not {len(text)}")
    return text


def _check_token(token: object) -> None:
    # No message may show it, not even a part of it.
    if not isinstance(token, str):
        raise TypeError(f"token must be a str, not {type(token).__name__}")
    if not 1 <= len(token) <= MAX_TOKEN:
        raise ValueError(f"token must have 1 to {MAX_TOKEN} characters, not {len(token)}")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError("token has a character that no token has, such as the end of a line")


def _files(cert: object) -> tuple[str | PathLike[str], str | PathLike[str]]:
    files = cert if isinstance(cert, tuple) else (cert, cert)
    if len(files) != 2 or not all(isinstance(each, str | os.PathLike) for each in files):  # noqa: PLR2004
        raise TypeError("cert must be a path, or a tuple of two: of the certificate and of its key")
    return files
