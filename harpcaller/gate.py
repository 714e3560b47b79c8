"""Who gets in: the terms of the configuration, applied to each connection and each request.

What those who are in may do is decided in ``harpcaller.permissions``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from twisted.internet.interfaces import IAddress

from harp import errors
from harp.addresses import Crowd, Failures
from harp.wire import dispatcher as wire
from harp.wire.front import auth_reader
from harpcaller import audit
from harpcaller.identities import NOTHING, Identity, Proof
from harpcaller.logs import logger
from harpcaller.refusal import RefusedError
from harpcaller.terms import ClientLimits, Terms

_auth_in_front = auth_reader("harpcaller", wire.Auth)


class Gate:
    """Lets clients in.

    :param seconds: a clock that never goes back.
    """

    _log = logger("harpcaller.gate")

    def __init__(self, seconds: Callable[[], float], terms: Terms) -> None:
        self.crowd = Crowd(seconds, self._log, terms.limits.bounds)
        self.failures = Failures(seconds)
        self.terms = terms

    def admits(self, address: IAddress | None) -> bool:
        """Return whether there may be one more connection, from that address."""
        return self.crowd.admits(host_of(address))

    def use(self, terms: Terms) -> None:
        """Put other terms into force; they hold for the requests to come, on every connection."""
        self.terms = terms
        self.crowd.bounds = terms.limits.bounds


class LoginError(RefusedError):
    """Nobody who is known asks, where that is needed, or with a token that is not known.

    :param delay: by how many seconds to put the answer off.
    """

    def __init__(self, message: str, delay: float) -> None:
        super().__init__(errors.NOT_AUTHENTICATED, message)
        self.delay = delay


class Visitor:
    """The peer of one connection, asked at each request who it is.

    :param peer: its address.
    :param is_local: whether the port can be reached from this machine only.
    :ivar proof: what the connection tells of it.
    :ivar nobody: who it is where nobody asks.
    """

    def __init__(self, gate: Gate, peer: str, is_local: bool) -> None:
        self.peer = peer
        self.proof = NOTHING
        self.nobody = Identity(None, peer=peer)
        self._gate = gate
        self._is_local = is_local
        self._found: tuple[Terms, Proof, Identity | None] | None = None

    @property
    def limits(self) -> ClientLimits:
        """The limits that are in force."""
        return self._gate.terms.limits

    @property
    def is_in(self) -> bool:
        """Whether it needs no token to get in."""
        return self._by_connection() is not None

    def may_go_on(self, beginning: bytes) -> bool:
        """Return whether a token that is right stands at the beginning of a line.

        :raises LoginError: if one stands there that is not.
        """
        auth = _auth_in_front(beginning)
        if auth is None or auth.token is None:
            return False
        self._by_token(auth.token, None)
        return True

    def identity(self, request: wire.Request) -> Identity:
        """Return who asks; a refusal is logged here.

        :raises LoginError: if that is not known.
        :raises RefusedError: ``not_allowed``, if it may not name the person for whom it asks.
        """
        auth = request.auth
        if auth is None or auth.token is None:
            identity = self._by_connection()
            if identity is None:
                raise self._login_error(self._needed, request)
        else:
            identity = self._by_token(auth.token, request)
        if auth is None or auth.on_behalf_of is None:
            return identity
        identity = replace(identity, on_behalf_of=auth.on_behalf_of)
        if not identity.is_trusted:
            why = "only a trusted user may ask on behalf of others - at `$.auth.on_behalf_of`"
            audit.refused(identity, request, why)
            raise RefusedError(errors.NOT_ALLOWED, why)
        return identity

    def _by_connection(self) -> Identity | None:
        """Return who it is by the connection alone, None if it needs a token."""
        found, terms, proof = self._found, self._gate.terms, self.proof
        if found is None or found[0] is not terms or found[1] is not proof:
            self._found = found = terms, proof, self._looked_up(terms, proof)
        return found[2]

    def _looked_up(self, terms: Terms, proof: Proof) -> Identity | None:
        user = terms.users.by_proof(proof, terms.trusted)
        if user is not None:
            return user.asks(self.peer)
        return self.nobody if self._is_local or terms.insecure else None

    def _by_token(self, token: str, request: wire.Request | None) -> Identity:
        user = self._gate.terms.users.by_token(token)
        if user is None:
            raise self._login_error("the token is not that of a user here", request)
        return user.asks(self.peer)

    @property
    def _needed(self) -> str:
        certificate = self.proof.certificate
        if certificate is None:
            return "a token or a client certificate is needed here"
        what = f"there is no token, and the certificate {certificate.fingerprint}"
        if certificate.authorities is None:
            return f"{what} is not that of a user, nor verified by client_ca_file"
        return f"{what} is not that of a user, nor are its names"

    def _login_error(self, why: str, request: wire.Request | None) -> LoginError:
        audit.refused(self.nobody, request, why)
        return LoginError(why, self._gate.failures.note(self.peer))


def host_of(address: IAddress | None) -> str:
    """Return the address of a peer as logs and jobs have it."""
    return getattr(address, "host", None) or "unix"  # whose address is a path, if there is one
