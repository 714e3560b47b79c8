"""Who asks: the users of the configuration, and who of them it is by what somebody has proved.

What they may do is decided in ``harpcaller.permissions``; how users are written, in
`harpcaller.users`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks.

    :param name: the user's name, None for nobody in particular.
    :param is_trusted: whether the user may say on whose behalf it asks.
    :param on_behalf_of: the person for whom it asks.
    :param peer: the address, for logs.
    """

    name: str | None
    groups: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    is_trusted: bool = False
    on_behalf_of: str | None = None
    peer: str = ""


@dataclass(frozen=True)
class User:
    """A person or program that the configuration knows."""

    name: str
    groups: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    is_trusted: bool = False

    def asks(self, peer: str) -> Identity:
        """Return who asks, if it is this user."""
        return Identity(self.name, self.groups, self.tags, self.is_trusted, peer=peer)


@dataclass(frozen=True, slots=True)
class Certificate:
    """The certificate of a client, whose key it has.

    :param fingerprint: its own, as `harp.fingerprints` writes it.
    :param names: what it is made out to, in lower case.
    :param authorities: the SHA-256 of those by whom it was verified, None if it was not.
    """

    fingerprint: str
    names: frozenset[str]
    authorities: str | None


@dataclass(frozen=True, slots=True)
class Proof:
    """What a connection tells of its peer, whoever that is by the users of the moment.

    :param uid: of a process of this machine.
    """

    certificate: Certificate | None = None
    uid: int | None = None


NOTHING = Proof()


@dataclass(frozen=True)
class Users:
    """The users, by all they can be known by.

    :param tokens: by the SHA-256 of a token in hexadecimal digits. A token has so much chance in it
        that nobody finds another with that hash, so how long it takes to look one up tells nothing.
    :param fingerprints: by the fingerprint of a certificate, as `harp.fingerprints` writes it.
    :param names: by a name, in lower case, in a certificate that an authority has signed.
    :param uids: by the uid of a process of this machine.
    """

    known: tuple[User, ...] = ()
    tokens: Mapping[str, User] = field(default_factory=dict)
    fingerprints: Mapping[str, User] = field(default_factory=dict)
    names: Mapping[str, User] = field(default_factory=dict)
    uids: Mapping[int, User] = field(default_factory=dict)

    @property
    def reach_over_network(self) -> bool:
        """Whether any of them can say over TLS who it is."""
        return bool(self.tokens or self.fingerprints or self.names)

    def by_token(self, token: str) -> User | None:
        """Return whose token that is."""
        return self.tokens.get(hashlib.sha256(token.encode()).hexdigest())

    def by_proof(self, proof: Proof, authorities: str | None) -> User | None:
        """Return who is at the other end of a connection.

        :param authorities: the SHA-256 of those that are trusted now: what others have verified is
            worth nothing any more.
        """
        certificate = proof.certificate
        if certificate is not None:
            user = self.fingerprints.get(certificate.fingerprint)
            if user is None and certificate.authorities == authorities is not None:
                users = {self.names[name] for name in certificate.names if name in self.names}
                # One that stands for two users stands for none.
                user = users.pop() if len(users) == 1 else None
            if user is not None:
                return user
        return None if proof.uid is None else self.uids.get(proof.uid)
