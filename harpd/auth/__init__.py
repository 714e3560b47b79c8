"""Who may call: the interface of authentication modules, and the memory of recent successes.

A module that ``authentication.module`` names has a function ``load(section)``. It takes the
`harp.settings.Section` with the keys of ``authentication``, notes mistakes there, and returns an
`Authenticator`. `harpd.auth.inconfig` and `harpd.auth.passfile` are two of them.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any
from typing import Protocol as Interface

from twisted.internet.defer import Deferred, DeferredSemaphore, succeed
from twisted.internet.threads import deferToThreadPool

MAX_PASSWORD = 512
"""The longest password in bytes; libcrypt refuses longer ones (CRYPT_MAX_PASSPHRASE_SIZE)."""

REMEMBERED_FOR = 60.0
"""Seconds for which a password that was right is not hashed again."""

MAX_HASHING = 2
"""How many passwords are hashed at once; guesses must not take the threads from all else."""

_MAX_REMEMBERED = 1024


class Authenticator(Interface):
    """Says whether a password is right."""

    def verify(self, user: str, password: str) -> bool:
        """Tell whether this is the user's password.

        Called in a thread, for unknown users too: it should take as long for them.
        """


class Login:
    """Asks the authenticator in a thread, and remembers for a short while what it agreed to.

    :param reactor: its clock and its thread pool are used.
    """

    def __init__(self, reactor: Any, authenticator: Authenticator) -> None:
        self._reactor = reactor
        self._authenticator = authenticator
        self._secret = os.urandom(32)
        self._remembered: dict[bytes, float] = {}
        self._hashing = DeferredSemaphore(MAX_HASHING)

    def use(self, authenticator: Authenticator) -> None:
        """Ask another one from now on, and remember nothing that was agreed to before."""
        self._authenticator = authenticator
        self._remembered = {}
        self._secret = os.urandom(32)  # which the answers that are still due do not have

    def check(self, user: str, password: str) -> Deferred[bool]:
        """Tell whether this is the user's password."""
        if len(password.encode()) > MAX_PASSWORD:
            return succeed(False)
        # The lengths keep apart what would be equal when put together.
        text = f"{len(user)}:{user}{password}".encode()
        key = hashlib.blake2b(text, key=self._secret).digest()
        now = self._reactor.seconds()
        if self._remembered.get(key, now) > now:
            return succeed(True)
        verified: Deferred[bool] = self._hashing.run(
            deferToThreadPool,
            self._reactor,
            self._reactor.getThreadPool(),
            self._authenticator.verify,
            user,
            password,
        )
        return verified.addCallback(self._remember, key)

    def _remember(self, agreed: bool, key: bytes) -> bool:
        if agreed:
            now = self._reactor.seconds()
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered = {k: end for k, end in self._remembered.items() if end > now}
            if len(self._remembered) < _MAX_REMEMBERED:
                self._remembered[key] = now + REMEMBERED_FOR
        return agreed
