"""Which dispatcher the ``harp`` command talks to, and who it says it is.

Options come before the environment, that before the file of profiles, and that before this machine.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harp import HarpCaller, settings
from harp.cli.addresses import UNIX, read_address
from harp.cli.status import Failure, Status
from harp.network import Address
from harp.wire.dispatcher import DEFAULT_PORT

TLS = "tls:"
CONNECT_TIMEOUT = 10.0
"""Seconds for connecting, and as many for TLS; people do not wait for longer."""
REPLY_TIMEOUT = 60.0
"""Seconds for an answer that is due at once."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class Connection:
    """All that `harp.HarpCaller` is to know.

    :param dispatcher: ``HOST``, ``HOST:PORT``, either behind ``tls:``, or ``unix:/PATH``.
    """

    dispatcher: str = "localhost"
    tls: bool | None = None
    ca_file: Path | None = None
    cert: tuple[Path, Path] | None = None
    server_name: str | None = None
    token: str | None = None
    on_behalf_of: str | None = None
    connect_timeout: float = CONNECT_TIMEOUT
    reply_timeout: float = REPLY_TIMEOUT

    @property
    def address(self) -> Address:
        """Where the dispatcher is.

        :raises ValueError: if that is no address.
        """
        text = self.dispatcher.removeprefix(TLS)
        limits = (self.connect_timeout, self.reply_timeout)
        if text.startswith(UNIX):
            return Address(text, DEFAULT_PORT, *limits)
        return read_address(text, DEFAULT_PORT, *limits)

    @property
    def is_secured(self) -> bool:
        """Whether TLS is spoken."""
        if self.tls is None or self.dispatcher.startswith(TLS):
            files = self.ca_file or self.cert or self.server_name
            return self.dispatcher.startswith(TLS) or bool(files)
        return self.tls

    @property
    def tls_address(self) -> Address | None:
        """Where the dispatcher shows a certificate; None if it is spoken to without TLS.

        :raises ValueError: if it is no address.
        """
        address = self.address
        return address if self.is_secured and address.path is None else None

    def open(self) -> HarpCaller:
        """Return the dispatcher; nothing is sent yet.

        :raises Failure: if something of it can't be used.
        """
        try:
            address = self.address
            if self.token is not None and not (self.is_secured or address.is_this_machine):
                raise ValueError(
                    "the token would be sent unencrypted to another machine; tls: before the"
                    " address has it encrypted, or ca_file in the profile"
                )
            return HarpCaller(
                address.host,
                address.port,
                tls=self.is_secured,
                ca_file=self.ca_file,
                cert=self.cert,
                server_name=self.server_name,
                token=self.token,
                on_behalf_of=self.on_behalf_of,
                connect_timeout=self.connect_timeout,
                reply_timeout=self.reply_timeout,
            )
        except ValueError as error:
            raise Failure(f"dispatcher {self.dispatcher}: {error}", Status.USAGE) from error


def choose(
    dispatcher: str | None,
    profile: str | None,
    environ: Mapping[str, str],
    warn: Callable[[str], None],
) -> Connection:
    """Return the connection that options, environment and file of profiles ask for.

    An address that is given goes with nothing of a profile that is not named beside it: so no token
    is sent to where it does not belong. ``HARP_TOKEN`` comes before the token of any profile.

    :param warn: called with what people should mend.
    :raises Failure: if they can't be used.
    """
    if dispatcher is None and profile is None:
        dispatcher = environ.get("HARP_DISPATCHER") or None
        profile = environ.get("HARP_PROFILE") or None
    connection = Connection()
    file = config_file(environ)
    if profile is not None or (dispatcher is None and file.exists()):
        connection = _read(file, profile, warn)
    if dispatcher is not None:
        connection = replace(connection, dispatcher=dispatcher)
    token = environ.get("HARP_TOKEN") or None
    return connection if token is None else replace(connection, token=token)


def config_file(environ: Mapping[str, str]) -> Path:
    """Return where the file of profiles is, if there is one."""
    base = environ.get("XDG_CONFIG_HOME", "")
    folder = Path(base) if os.path.isabs(base) else Path("~/.config").expanduser()
    return folder / "harp" / "config.yaml"


def profile_names(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the profiles that there are.

    :raises Failure: if the file can't be used.
    """
    file = config_file(environ)
    return list(_profiles(file)[1]) if file.exists() else []


@dataclass(frozen=True)
class _Profile:
    connection: Connection
    token_file: Path | None


def _read(file: Path, name: str | None, warn: Callable[[str], None]) -> Connection:
    default, profiles = _profiles(file)
    wanted = default if name is None else name
    if wanted is None:
        return Connection()
    if wanted not in profiles:
        known = ", ".join(profiles) or "none"
        text = f"{file}: there is no profile {wanted}; those that are: {known}"
        raise Failure(text, Status.USAGE)
    found = profiles[wanted]
    if found.connection.token is not None:
        _warn_if_open(file, warn)
    if found.token_file is None:
        return found.connection
    _warn_if_open(found.token_file, warn)
    try:
        token = found.token_file.read_text("ascii").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not ASCII"
        raise Failure(f"token_file {found.token_file}: {why}", Status.USAGE) from None
    return replace(found.connection, token=token)


def _profiles(file: Path) -> tuple[str | None, dict[str, _Profile]]:
    try:
        with settings.read(file) as root:
            default = root.optional_text("default")
            profiles = {}
            if "profiles" in root:
                section = root.section("profiles")
                profiles = {name: _profile(section.section(name)) for name in section.keys()}  # noqa: SIM118
            if default is not None and default not in profiles:
                root.mistake("default", "there is no profile of this name")
    except settings.ConfigError as error:
        raise Failure(str(error), Status.USAGE) from error
    return default, profiles


def _profile(section: settings.Section) -> _Profile:
    def path(text: str) -> Path:
        return section.folder / Path(text).expanduser()

    cert = None
    if "cert" in section:
        files = section.texts("cert", [])
        if len(files) not in (1, 2):
            section.mistake("cert", "must be a file, or two: of the certificate and of its key")
        elif files:
            cert = (path(files[0]), path(files[-1]))
    ca_file = section.optional_text("ca_file")
    token_file = section.optional_text("token_file")
    if token_file is not None and "token" in section:
        section.mistake("token_file", "stands beside token: one of them is enough")
    connection = Connection(
        dispatcher=section.text("dispatcher"),
        tls=section.flag("tls") if "tls" in section else None,
        ca_file=None if ca_file is None else path(ca_file),
        cert=cert,
        server_name=section.optional_text("server_name"),
        token=section.optional_text("token"),
        on_behalf_of=section.optional_text("on_behalf_of"),
        connect_timeout=section.seconds("connect_timeout", CONNECT_TIMEOUT),
        reply_timeout=section.seconds("reply_timeout", REPLY_TIMEOUT),
    )
    return _Profile(connection, None if token_file is None else path(token_file))


def _warn_if_open(file: Path, warn: Callable[[str], None]) -> None:
    try:
        mode = file.stat().st_mode
    except OSError:
        return  # reading it says why
    if mode & _OTHERS:
        warn(f"{file} holds a token and is open to other users: chmod 600 {file}")
