"""What stands under ``rules`` in the configuration, made into values; every mistake is named.

What the rules allow is decided in `harpcaller.permissions`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from harp.settings import Scalar, Section
from harpcaller.identities import User

ANONYMOUS = "anonymous"
EVERYBODY = "*"
OWN = "own"
ALL = "all"

RESERVED = frozenset({ANONYMOUS, EVERYBODY, OWN, ALL})
"""What rules say of others than the user of that name."""

_GROUP, _TAG = "group:", "tag:"
_POSITION = re.compile("0|[1-9][0-9]{0,2}")


@dataclass(frozen=True)
class Who:
    """To whom a rule applies: to users by their names, groups and tags.

    :param anonymous: also to nobody in particular.
    :param everybody: to all who got in.
    """

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    anonymous: bool = False
    everybody: bool = False


@dataclass(frozen=True)
class Arguments:
    """Which arguments a call may have: exactly these, and each one of its values.

    With neither positions nor names: none. A text among the values is a shell pattern.
    """

    positions: tuple[tuple[Scalar, ...], ...] = ()
    names: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Calls:
    """Which calls a rule allows.

    :param procedures: shell patterns.
    :param hosts: shell patterns of their names.
    :param host_tags: shell patterns of their tags.
    :param arguments: None for any.
    """

    procedures: tuple[str, ...]
    hosts: tuple[str, ...] = ("*",)
    host_tags: tuple[str, ...] = ()
    arguments: Arguments | None = None


@dataclass(frozen=True)
class Whose:
    """Whose jobs: those of users, one's own, or all."""

    users: frozenset[str] = frozenset()
    own: bool = False
    all: bool = False

    def __bool__(self) -> bool:
        return bool(self.users) or self.own or self.all


@dataclass(frozen=True)
class Rule:
    """One rule: what it allows to whom."""

    who: Who
    calls: Calls | None = None
    sees: Whose = Whose()
    cancels: Whose = Whose()
    queues: bool = False
    administers: bool = False


def read_rules(keys: Section, users: Iterable[User]) -> tuple[Rule, ...] | None:
    """Return the rules of the configuration; None if it has none, so that nothing is forbidden.

    :param users: those that the configuration knows.
    """
    if "rules" not in keys:
        return None
    known = _Known(users)
    return tuple(_rule(section, known) for section in keys.sections("rules"))


class _Known:
    """The users that a rule may name, by their names, groups and tags."""

    def __init__(self, users: Iterable[User]) -> None:
        self.users: set[str] = set()
        self._members: dict[str, set[str]] = {}
        for user in users:
            self.users.add(user.name)
            ways = {f"{_GROUP}{group}" for group in user.groups}
            ways |= {f"{_TAG}{tag}" for tag in user.tags}
            for way in {user.name} | ways:
                self._members.setdefault(way, set()).add(user.name)

    def members(self, name: str) -> set[str]:
        """Return the users whom a good name stands for."""
        return self._members[name]

    def good(self, keys: Section, key: str, others: Set[str]) -> list[str]:
        """Return the texts under a key that are known; each of the others is a mistake.

        :param others: what may stand there besides.
        """
        good = []
        for name in _texts(keys, key):
            if name in others or name in self._members:
                good.append(name)
            else:
                is_user = not name.startswith((_GROUP, _TAG))
                keys.mistake(key, f"{'there is no user' if is_user else 'no user has'} {name!r}")
        return good


def _rule(keys: Section, known: _Known) -> Rule:
    who = _who(keys, known)
    rule = Rule(
        who=who,
        calls=_calls(keys),
        sees=_whose(keys, "see", known),
        cancels=_whose(keys, "cancel", known),
        queues=keys.flag("queues"),
        administers=keys.flag("administer"),
    )
    if not (rule.calls or rule.sees or rule.cancels or rule.queues or rule.administers):
        keys.mistake("call", "is missing, and so are see, cancel, queues and administer")
    if who == Who(anonymous=True):
        for key, whose in (("see", rule.sees), ("cancel", rule.cancels)):
            if whose.own:
                keys.mistake(key, f"{ANONYMOUS} has no jobs of its own")
    return rule


def _who(keys: Section, known: _Known) -> Who:
    if "who" not in keys:
        keys.mistake("who", "is missing")
    names = known.good(keys, "who", {ANONYMOUS, EVERYBODY})
    return Who(
        users=frozenset(names).intersection(known.users),
        groups=frozenset(_behind(_GROUP, names)),
        tags=frozenset(_behind(_TAG, names)),
        anonymous=ANONYMOUS in names,
        everybody=EVERYBODY in names,
    )


def _whose(keys: Section, key: str, known: _Known) -> Whose:
    names = set(known.good(keys, key, {OWN, ALL}))
    return Whose(
        users=frozenset().union(*map(known.members, names - {OWN, ALL})),
        own=OWN in names,
        all=ALL in names,
    )


def _calls(keys: Section) -> Calls | None:
    if "call" not in keys:
        for key in ("hosts", "arguments"):
            if key in keys:
                keys.mistake(key, "is of no use without call")
        return None
    hosts = _texts(keys, "hosts") if "hosts" in keys else ["*"]
    return Calls(
        procedures=tuple(_texts(keys, "call")),
        hosts=tuple(host for host in hosts if not host.startswith(_TAG)),
        host_tags=tuple(_behind(_TAG, hosts)),
        arguments=_arguments(keys.section("arguments")) if "arguments" in keys else None,
    )


def _arguments(keys: Section) -> Arguments:
    values = {key: tuple(keys.scalars(key)) for key in list(keys.keys())}
    positions = {int(key): values.pop(key) for key in list(values) if _POSITION.fullmatch(key)}
    if positions and values:
        what = "is a name: a call gives either all arguments by name or all by position"
        keys.mistake(next(iter(values)), what)
    missing = set(range(len(positions))) - positions.keys()
    if missing:
        keys.mistake(str(max(positions)), f"is a position, and there is none of {min(missing)}")
    return Arguments(tuple(positions[number] for number in sorted(positions)), values)


def _texts(keys: Section, key: str) -> list[str]:
    """Return the texts under a key; none only if that is a mistake, or if it is not there."""
    wrong: list[str] = []
    texts = keys.texts(key, wrong)
    if not texts and texts is not wrong:
        keys.mistake(key, "must not be empty")
    return texts


def _behind(prefix: str, names: Iterable[str]) -> list[str]:
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
