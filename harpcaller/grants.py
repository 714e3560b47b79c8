"""All that somebody may do: the rules that apply to them, put together, and what they cover.

Which request needs what of it is said in `harpcaller.permissions`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import Any

import msgspec

from harp.settings import Scalar
from harpcaller.hosts import Host
from harpcaller.identities import Identity
from harpcaller.rules import Arguments, Calls, Rule, Who, Whose

People = frozenset[str] | None
"""Whose jobs: those that one of them submitted, or that were for one of them; None for all."""


@dataclass(frozen=True)
class Grants:
    """All that somebody may do.

    :param lookup: finds a host, whose tags count at the moment of a call.
    :param sees: whose jobs, with their results, packets and places in lists.
    """

    lookup: Callable[[str], Host | None]
    calls: tuple[Calls, ...] = ()
    sees: People = frozenset()
    cancels: People = frozenset()
    queues: bool = False
    administers: bool = False

    @property
    def allows_something(self) -> bool:
        """Whether there is anything that is allowed."""
        return bool(
            self.calls
            or has_any(self.sees)
            or has_any(self.cancels)
            or self.queues
            or self.administers
        )

    def may_call(self, host: str, procedure: str, arguments: msgspec.Raw) -> bool:
        """Say whether a call is allowed; its arguments are decoded if that depends on them."""
        found = [calls.arguments for calls in self._calls_on(host) if _covers(calls, procedure)]
        wanted = [arguments for arguments in found if arguments is not None]
        if len(wanted) < len(found):
            return True
        return bool(wanted) and _is_one_of(wanted, arguments)

    def shows_host(self, name: str) -> bool:
        """Say whether a host may be known: some call to it is allowed, or all are shown."""
        return self.administers or any(True for _ in self._calls_on(name))

    def shows_procedure(self, host: str, name: str) -> bool:
        """Say whether a procedure of a host may be known, in the same way."""
        return self.administers or any(_covers(calls, name) for calls in self._calls_on(host))

    def _calls_on(self, name: str) -> Iterable[Calls]:
        tags: Sequence[str] | None = None
        for calls in self.calls:
            if _fits(name, calls.hosts):
                yield calls
            elif calls.host_tags:
                if tags is None:
                    host = self.lookup(name)
                    tags = () if host is None else host.tags
                if any(_fits(tag, calls.host_tags) for tag in tags):
                    yield calls


def grants_of(
    identity: Identity, rules: Iterable[Rule], lookup: Callable[[str], Host | None]
) -> Grants:
    """Return all that rules allow to somebody."""
    applying = [rule for rule in rules if _applies(rule.who, identity)]
    return Grants(
        lookup,
        tuple(rule.calls for rule in applying if rule.calls is not None),
        _people([rule.sees for rule in applying], identity),
        _people([rule.cancels for rule in applying], identity),
        any(rule.queues for rule in applying),
        any(rule.administers for rule in applying),
    )


def has_any(people: People) -> bool:
    """Say whether there is anybody whose jobs they are."""
    return people is None or bool(people)


def _applies(who: Who, identity: Identity) -> bool:
    if who.everybody or (who.anonymous and identity.name is None):
        return True
    if identity.name is None:
        return False
    return (
        identity.name in who.users
        or not who.groups.isdisjoint(identity.groups)
        or not who.tags.isdisjoint(identity.tags)
    )


def _people(granted: Iterable[Whose], identity: Identity) -> People:
    """Return whose jobs are granted; nobody in particular has none of its own."""
    owners: set[str] = set()
    for whose in granted:
        if whose.all:
            return None
        owners |= whose.users
        if whose.own and identity.name is not None:
            owners.add(identity.name)
    return frozenset(owners)


def _covers(calls: Calls, procedure: str) -> bool:
    return _fits(procedure, calls.procedures)


def _fits(text: str, patterns: Iterable[str]) -> bool:
    return any(_matcher(pattern)(text) is not None for pattern in patterns)


@lru_cache(10_000)
def _matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Return what `fnmatch.fnmatchcase` would compile anew where there are many patterns."""
    return re.compile(translate(pattern)).match


def _is_one_of(wanted: Iterable[Arguments], arguments: msgspec.Raw) -> bool:
    try:
        given = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):  # sound JSON all the same, as 1e400
        return False
    return any(_accepts(each, given) for each in wanted)


def _accepts(wanted: Arguments, given: Any) -> bool:
    """Say whether exactly the wanted arguments are given, by position or by name."""
    if isinstance(given, list):
        return (
            not wanted.names
            and len(given) == len(wanted.positions)
            and all(map(_is_value, given, wanted.positions))
        )
    return (
        not wanted.positions
        and given.keys() == wanted.names.keys()
        and all(_is_value(value, wanted.names[name]) for name, value in given.items())
    )


def _is_value(given: Any, values: Iterable[Scalar]) -> bool:
    return any(_is_equal(given, value) for value in values)


def _is_equal(given: Any, wanted: Scalar) -> bool:
    """Say whether an argument is what a rule wants: ``"*"`` anything, else a value of its type.

    Numbers are equal by their value, as in JSON: 1 and 1.0 are one number. True is none.
    """
    if wanted == "*":
        return True
    if isinstance(wanted, str):
        return isinstance(given, str) and _fits(given, (wanted,))
    if isinstance(wanted, bool) or wanted is None or isinstance(given, bool):
        return given is wanted
    return isinstance(given, int | float) and given == wanted
