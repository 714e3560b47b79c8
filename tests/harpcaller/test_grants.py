"""Tests of ``harpcaller.grants``."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harpcaller import grants as module
from harpcaller.grants import Grants, grants_of
from harpcaller.hosts import Host
from harpcaller.identities import Identity
from harpcaller.rules import Arguments, Calls, Rule, Who, Whose

HOSTS = {
    name: Host(name, "10.0.0.1", 4306, "u", "p", tags)
    for name, tags in (("web01", ("front", "berlin")), ("db01", ("back",)), ("new", ()))
}
ANNA = Identity("anna", frozenset({"operators"}), frozenset({"night"}))
NOBODY = Identity(None)
EVERYBODY = Who(everybody=True)


def of(identity: Identity, *rules: Rule) -> Grants:
    """Return what rules allow to somebody."""
    return grants_of(identity, rules, HOSTS.get)


def with_calls(*calls: Calls) -> Grants:
    """Return what allows calls."""
    return of(NOBODY, *(Rule(EVERYBODY, each) for each in calls))


def may_call(grants: Grants, host: str, procedure: str, arguments: Any = ()) -> bool:
    """Say whether a call is allowed."""
    return grants.may_call(host, procedure, msgspec.Raw(json.dumps(arguments).encode()))


class WhoTests(SynchronousTestCase):
    """To whom a rule applies."""

    def test_who(self) -> None:
        """By name, group or tag; everybody is nobody in particular too."""
        for who, anna, nobody in (
            (Who(frozenset({"anna"})), True, False),
            (Who(groups=frozenset({"operators", "others"})), True, False),
            (Who(tags=frozenset({"night"})), True, False),
            (
                Who(frozenset({"operators"}), frozenset({"night"}), frozenset({"anna"})),
                False,
                False,
            ),
            (Who(anonymous=True), False, True),
            (EVERYBODY, True, True),
        ):
            for identity, expected in ((ANNA, anna), (NOBODY, nobody)):
                self.assertEqual(of(identity, Rule(who, queues=True)).queues, expected, who)

    def test_for_another(self) -> None:
        """Who acts on somebody's behalf does so by the own permissions."""
        panel = Identity("panel", is_trusted=True, on_behalf_of="anna")
        mine = Rule(Who(frozenset({"anna"})), administers=True, sees=Whose(own=True))
        self.assertFalse(of(panel, mine).allows_something)
        seen = of(panel, Rule(EVERYBODY, sees=Whose(own=True))).sees
        self.assertEqual(seen, {"panel"})

    def test_rules_add_up(self) -> None:
        """What one rule allows no other takes away."""
        found = of(
            ANNA,
            Rule(EVERYBODY, Calls(("df",)), Whose(own=True), Whose(frozenset({"bert"}))),
            Rule(EVERYBODY, Calls(("du",)), Whose(frozenset({"bert"})), Whose(all=True)),
            Rule(EVERYBODY, queues=True),
            Rule(EVERYBODY, administers=True),
            Rule(Who(frozenset({"bert"})), Calls(("rm",))),
        )
        self.assertTrue(may_call(found, "x", "df") and may_call(found, "x", "du"))
        self.assertFalse(may_call(found, "x", "rm"))
        self.assertEqual((found.sees, found.cancels), ({"anna", "bert"}, None))
        self.assertTrue(found.queues and found.administers)

    def test_nothing(self) -> None:
        """Whoever no rule applies to may do nothing, nor has nobody in particular own jobs."""
        self.assertFalse(of(ANNA).allows_something)
        own = Rule(EVERYBODY, sees=Whose(own=True), cancels=Whose(own=True))
        self.assertFalse(of(NOBODY, own).allows_something)

    def test_something(self) -> None:
        """Each permission is one."""
        for keys in (
            {"calls": Calls(("df",))},
            {"sees": Whose(all=True)},
            {"cancels": Whose(own=True)},
            {"queues": True},
            {"administers": True},
        ):
            self.assertTrue(of(ANNA, Rule(EVERYBODY, **keys)).allows_something)


class CallTests(SynchronousTestCase):
    """Which calls are allowed."""

    def test_patterns(self) -> None:
        """Procedures and hosts by shell patterns, in which case matters."""
        calls = with_calls(Calls(("restart", "status_*"), ("web??",)))
        for host, procedure, expected in (
            ("web01", "restart", True),
            ("web01", "status_all", True),
            ("web01", "Restart", False),
            ("web01", "restart_all", False),
            ("WEB01", "restart", False),
            ("web1", "restart", False),
            ("web01.example", "restart", False),
        ):
            self.assertEqual(may_call(calls, host, procedure), expected, (host, procedure))

    def test_host_tags(self) -> None:
        """Tags are those that the registry has at the moment of the call."""
        known = dict(HOSTS)
        rule = Rule(EVERYBODY, Calls(("*",), ("new*",), ("front", "ba*")))
        grants = grants_of(ANNA, [rule], known.get)
        expected = {"web01": True, "db01": True, "new": True, "newer": True, "unknown": False}
        for host, is_allowed in expected.items():
            self.assertEqual(may_call(grants, host, "df"), is_allowed, host)
        known["web01"] = Host("web01", "10.0.0.1", 4306, "u", "p", ())
        self.assertFalse(may_call(grants, "web01", "df"))

    def test_each_rule_by_itself(self) -> None:
        """The procedures of one rule are not allowed on the hosts of another."""
        calls = with_calls(Calls(("df",), ("web01",)), Calls(("du",), ("db01",)))
        self.assertTrue(may_call(calls, "web01", "df"))
        self.assertFalse(may_call(calls, "web01", "du"))

    def test_arguments(self) -> None:
        """Exactly the arguments that are given, by name or by position."""
        by_name = with_calls(
            Calls(("*",), arguments=Arguments(names={"s": ("a", "b*"), "n": (1,)}))
        )
        by_place = with_calls(Calls(("*",), arguments=Arguments((("a", "b*"), (1,)))))
        none = with_calls(Calls(("*",), arguments=Arguments()))
        for arguments, allowed in (
            ({"s": "a", "n": 1}, [by_name]),
            ({"n": 1, "s": "bcd"}, [by_name]),
            ({"s": "a"}, []),
            ({"s": "a", "n": 1, "x": None}, []),
            ({"s": "c", "n": 1}, []),
            ({"0": "a", "1": 1}, []),
            (["a", 1], [by_place]),
            (["bcd", 1], [by_place]),
            (["a"], []),
            (["a", 1, 1], []),
            ([1, "a"], []),
            ([], [none]),
            ({}, [none]),
        ):
            for grants in (by_name, by_place, none):
                found = may_call(grants, "x", "y", arguments)
                self.assertEqual(found, grants in allowed, arguments)

    def test_values(self) -> None:
        """A value is one of its type; a number is one by its value; ``*`` is anything."""
        for wanted, accepted, refused in (
            (1, ["1", "1.0", "1e0"], ["true", '"1"', "2", "null", "[1]", "1.0000001"]),
            (1.5, ["1.5", "15e-1"], ["1", '"1.5"']),
            (0, ["0", "-0", "0.0"], ["false", "null", '""', "[]", "{}"]),
            (2**64, ["18446744073709551616"], ["18446744073709551615"]),
            (True, ["true"], ["1", "1.0", '"true"', "false"]),
            (False, ["false"], ["0", "null", '""']),
            (None, ["null"], ["0", "false", '""', '"null"']),
            ("a*", ['"a"', '"a\\nb"', '"\\u0061bc"'], ['"A"', '"ba"', '["a"]', "1"]),
            ("1", ['"1"'], ["1", "true"]),
            ("**", ['"x"', '""'], ["1", "[]", "null"]),
            ("*", ['"x"', "1", "[]", '{"a": []}', "null", "true"], []),
        ):
            grants = with_calls(Calls(("*",), arguments=Arguments(((wanted,),))))
            for is_accepted, texts in ((True, accepted), (False, refused)):
                for text in texts:
                    raw = msgspec.Raw(f"[{text}]".encode())
                    self.assertEqual(grants.may_call("x", "y", raw), is_accepted, (wanted, text))

    def test_what_can_not_be_decoded(self) -> None:
        """Arguments that are JSON and still no value are covered by no rule that looks at them."""
        grants = with_calls(Calls(("*",), arguments=Arguments((("*",),))))
        for text in ("[1e400]", '["\\ud800"]', "[" * 100_000 + "]" * 100_000):
            self.assertFalse(grants.may_call("x", "y", msgspec.Raw(text.encode())), text[:20])

    def test_decoded_only_where_that_matters(self) -> None:
        """Arguments are opened if a rule that covers the call otherwise wants some, only then."""
        opened: list[bytes] = []

        def open_it(wanted: object, raw: msgspec.Raw) -> bool:
            opened.append(bytes(raw))
            return False

        self.patch(module, "_is_one_of", open_it)
        wanted = Arguments((("a",),))
        some = Calls(("df",), ("web*",), arguments=wanted)
        for calls, expected in (
            ([some], 1),
            ([some, Calls(("d*",))], 0),
            ([Calls(("du",), arguments=wanted)], 0),
            ([Calls(("df",), ("db*",), arguments=wanted)], 0),
            ([Calls(("df",))], 0),
        ):
            opened.clear()
            may_call(with_calls(*calls), "web01", "df", ["a"])
            self.assertEqual(len(opened), expected, calls)


class ShownTests(SynchronousTestCase):
    """Which hosts and procedures may be known."""

    def test_what_one_may_call(self) -> None:
        """Those of which some call is allowed, whatever its arguments."""
        wanted = Arguments((("a",),))
        grants = with_calls(Calls(("df", "status_*"), ("web*",), ("back",), wanted))
        shown = {name: grants.shows_host(name) for name in (*HOSTS, "web99", "unknown")}
        expected = {"web01": 1, "db01": 1, "new": 0, "web99": 1, "unknown": 0}
        self.assertEqual(shown, expected)
        self.assertTrue(grants.shows_procedure("db01", "status_x"))
        self.assertFalse(grants.shows_procedure("db01", "rm"))
        self.assertFalse(grants.shows_procedure("new", "df"))

    def test_all_for_those_who_administer(self) -> None:
        """Who administers knows all, also without the right to call it."""
        grants = of(ANNA, Rule(EVERYBODY, administers=True))
        self.assertTrue(grants.shows_host("new") and grants.shows_procedure("new", "rm"))
        self.assertFalse(may_call(grants, "new", "rm"))


_words = st.sampled_from(["a", "b", "ab", "ba", ""])
_patterns = st.sampled_from(["a", "b", "a*", "*b", "?", "[ab]", "*", "[!a]*"])
_scalars = st.one_of(_patterns, st.sampled_from([0, 1, 1.0, -1, 2.5, True, False, None]))
_values = st.one_of(_words, _scalars, st.lists(_scalars, max_size=2))
_accepted = st.lists(_scalars, min_size=1, max_size=2).map(tuple)
_arguments = st.one_of(
    st.none(),
    st.builds(Arguments, st.lists(_accepted, max_size=2).map(tuple)),
    st.builds(lambda names: Arguments(names=names), st.dictionaries(_words, _accepted, max_size=2)),
)
_some = st.lists(_patterns, min_size=1, max_size=2).map(tuple)
_calls = st.builds(
    Calls, _some, st.one_of(_some, st.just(())), st.one_of(_some, st.just(())), _arguments
)
_people = st.frozensets(st.sampled_from(["anna", "bert"]), max_size=2)
_who = st.builds(Who, _people, _people, _people, st.booleans(), st.booleans())
_identities = st.one_of(
    st.just(NOBODY), st.builds(Identity, st.sampled_from(["anna", "bert"]), _people, _people)
)
_given = st.one_of(st.lists(_values, max_size=2), st.dictionaries(_words, _values, max_size=2))


def _is_justified(
    rule: Rule, identity: Identity, host: Host | None, call: tuple[str, str, Any]
) -> bool:
    """Say whether a rule allows a call, as simply as that can be written."""
    name, procedure, arguments = call
    who, calls = rule.who, rule.calls
    applies = who.everybody
    applies |= who.anonymous and identity.name is None
    applies |= identity.name is not None and identity.name in who.users
    if identity.name is not None:
        applies |= any(group in who.groups for group in identity.groups)
        applies |= any(tag in who.tags for tag in identity.tags)
    if not applies or calls is None:
        return False
    if not any(fnmatchcase(procedure, pattern) for pattern in calls.procedures):
        return False
    tags = host.tags if host else ()
    named = any(fnmatchcase(name, pattern) for pattern in calls.hosts)
    tagged = any(fnmatchcase(tag, pattern) for tag in tags for pattern in calls.host_tags)
    if not (named or tagged):
        return False
    if calls.arguments is None:
        return True
    if isinstance(arguments, list):
        if calls.arguments.names or len(arguments) != len(calls.arguments.positions):
            return False
        pairs = list(zip(arguments, calls.arguments.positions, strict=True))
    else:
        if calls.arguments.positions or set(arguments) != set(calls.arguments.names):
            return False
        pairs = [(arguments[key], calls.arguments.names[key]) for key in arguments]
    return all(any(_is(value, wanted) for wanted in accepted) for value, accepted in pairs)


def _is(value: Any, wanted: Any) -> bool:
    if wanted == "*":
        return True
    if isinstance(wanted, str):
        return isinstance(value, str) and fnmatchcase(value, wanted)
    number = (int, float)
    if type(value) in number and type(wanted) in number:
        return bool(value == wanted)
    return type(value) is type(wanted) and bool(value == wanted)


class ReferenceTests(SynchronousTestCase):
    """The matcher against one that is written without regard to cost."""

    @given(
        st.lists(st.builds(Rule, _who, st.one_of(st.none(), _calls)), max_size=3),
        _identities,
        st.dictionaries(_words, _some, max_size=2),
        st.tuples(_words, _words, _given),
    )
    def test_every_call_is_justified(
        self,
        rules: list[Rule],
        identity: Identity,
        tags: dict[str, tuple[str, ...]],
        call: tuple[str, str, Any],
    ) -> None:
        """A call is allowed if and only if there is a rule that allows it by itself."""
        hosts = {name: Host(name, "x", 1, "u", "p", of_it) for name, of_it in tags.items()}
        name, procedure, arguments = call
        found = may_call(grants_of(identity, rules, hosts.get), name, procedure, arguments)
        host = hosts.get(name)
        self.assertEqual(found, any(_is_justified(rule, identity, host, call) for rule in rules))
