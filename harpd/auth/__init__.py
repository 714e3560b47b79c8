"""Who may call: the interface of authentication modules, and the memory of recent successes.

A module that ``authentication.module`` names has a function ``load(section)``. It takes the
`harp.settings.Section` with the keys of ``authentication``, notes mistakes there, and returns an
`Authenticator`. `harpd.auth.inconfig` and `harpd.auth.passfile` are two of them.
"""

from __future__ import annotations

import hashlib
import math
import os
from typing import Any
from typing import Protocol as Interface

from twisted.internet.defer import Deferred, DeferredSemaphore, fail, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from harp.addresses import origin
from harpd.auth.passwords import can_be_hashed
from harpd.auth.turns import TooManyLoginsError, Turns

REMEMBERED_FOR = 60.0
"""Seconds for which a password that was right is not hashed again."""

KNOWN_FOR = 3600.0
"""Seconds for which one that was right is hashed without waiting for a turn: failures of others at
the same address do not hold it up."""

MAX_HASHING = 2
"""How many passwords are hashed at once; guesses must not take the threads from all else."""

MAX_WAITING = 100
"""How many more may wait for that, of all addresses together; the others are refused."""

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
        self._turns = Turns(reactor)

    def use(self, authenticator: Authenticator) -> None:
        """Ask another one from now on, and remember nothing that was agreed to before."""
        self._authenticator = authenticator
        self._remembered = {}
        self._secret = os.urandom(32)  # which the answers that are still due do not have

    def check(self, user: str, password: str, address: str) -> Deferred[bool]:
        """Tell whether this is the user's password; who does not want to know it may cancel.

        :param address: where it comes from; after failures the answer takes longer.
        :raises TooManyLoginsError: (errback) if it is not checked.
        """
        # The lengths keep apart what would be equal when put together.
        text = f"{len(user)}:{user}{password}".encode()
        key = hashlib.blake2b(text, key=self._secret).digest()
        age = self._age(key)
        if age < REMEMBERED_FOR:
            return succeed(True)
        network = origin(address)
        if age < KNOWN_FOR:
            return self._hash(user, password, key, network, has_turn=False)
        turn = self._turns.take(network)
        return turn.addCallback(lambda _: self._in_turn(user, password, key, network))

    def _age(self, key: bytes) -> float:
        """Return how long ago this was right, in seconds."""
        since = self._remembered.get(key)
        return math.inf if since is None else self._reactor.seconds() - since

    def _in_turn(self, user: str, password: str, key: bytes, network: str) -> bool | Deferred[bool]:
        if self._age(key) < REMEMBERED_FOR:  # by the one before, of many that came together
            self._turns.done(network, has_failed=False)
            return True
        if not can_be_hashed(password):
            self._turns.done(network, has_failed=True)
            return False
        if len(self._hashing.waiting) >= MAX_WAITING:
            self._turns.done(network, has_failed=False)
            return fail(TooManyLoginsError("too many logins are being checked: try again later"))
        return self._hash(user, password, key, network, has_turn=True)

    def _hash(
        self, user: str, password: str, key: bytes, network: str, has_turn: bool
    ) -> Deferred[bool]:
        # What was cancelled is hashed to its end: it has a thread.
        answer: Deferred[bool] = Deferred()

        def hashed(result: bool | Failure) -> None:
            has_failed = isinstance(result, Failure) or not result
            if has_turn:
                self._turns.done(network, has_failed)
            elif has_failed:
                self._turns.failed(network)
            if isinstance(result, Failure):
                answer.errback(result)
            else:
                answer.callback(result)

        verified: Deferred[bool] = self._hashing.run(
            deferToThreadPool,
            self._reactor,
            self._reactor.getThreadPool(),
            self._authenticator.verify,
            user,
            password,
        )
        verified.addCallback(self._remember, key).addBoth(hashed)
        return answer

    def _remember(self, agreed: bool, key: bytes) -> bool:
        if agreed:
            now = self._reactor.seconds()
            self._remembered.pop(key, None)
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered = {
                    k: since for k, since in self._remembered.items() if now - since < KNOWN_FOR
                }
            if len(self._remembered) >= _MAX_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[key] = now
        return agreed
