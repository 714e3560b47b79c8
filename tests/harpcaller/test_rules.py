"""Tests of ``harpcaller.rules``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harp.settings import ConfigError, read
from harpcaller.identities import User
from harpcaller.rules import Arguments, Calls, Rule, Who, Whose, read_rules

USERS = [
    User("panel", frozenset({"applications"}), frozenset({"web"})),
    User("anna", frozenset({"operators"})),
    User("bert", frozenset({"operators", "readers"})),
]


class RulesTestCase(SynchronousTestCase):
    """Reads rules written for the test."""

    def rules(self, text: str) -> tuple[Rule, ...] | None:
        """Return the rules of a file."""
        file = Path(self.mktemp())
        file.write_text(text)
        with read(file) as keys:
            return read_rules(keys, USERS)

    def rule(self, **keys: Any) -> Rule:
        """Return what a rule means; it applies to everybody unless that is given."""
        rules = self.rules(json.dumps({"rules": [{"who": "*"} | keys]}))  # JSON is YAML
        assert rules is not None
        (rule,) = rules
        return rule

    def mistakes(self, text: str) -> list[str]:
        """Return what is said about a file, without the file's name."""
        found = self.assertRaises(ConfigError, self.rules, text).mistakes
        return [each.partition(": ")[2] for each in found]

    def mistake(self, **keys: Any) -> str:
        """Return the only thing that is wrong with a rule."""
        (found,) = self.mistakes(json.dumps({"rules": [{"who": "*"} | keys]}))
        return found


class MeaningTests(RulesTestCase):
    """What each key of a rule means."""

    def test_no_rules(self) -> None:
        """Without the key there are none, which is not the same as rules that allow nothing."""
        self.assertIsNone(self.rules("{}"))

    def test_order(self) -> None:
        """All rules are read."""
        found = self.rules("rules:\n- {who: anna, queues: true}\n- {who: '*', administer: true}\n")
        assert found is not None
        self.assertEqual([(each.queues, each.administers) for each in found], [(1, 0), (0, 1)])

    def test_who(self) -> None:
        """Users by their names, groups and tags, nobody in particular, and everybody."""
        rule = self.rule(who=["panel", "group:operators", "tag:web", "anonymous"], queues=True)
        groups, tags = frozenset({"operators"}), frozenset({"web"})
        self.assertEqual(rule.who, Who(frozenset({"panel"}), groups, tags, anonymous=True))
        self.assertEqual(self.rule(queues=True).who, Who(everybody=True))

    def test_calls(self) -> None:
        """Procedures, and hosts by name and tag; all hosts and arguments if none are given."""
        rule = self.rule(call=["restart", "status_*"], hosts=["web*", "tag:front*"])
        self.assertEqual(rule.calls, Calls(("restart", "status_*"), ("web*",), ("front*",)))
        self.assertEqual(self.rule(call="df").calls, Calls(("df",), ("*",), (), None))
        only_tags = self.rule(call="df", hosts="tag:db").calls
        self.assertEqual(only_tags, Calls(("df",), (), ("db",)))

    def test_arguments(self) -> None:
        """By name or by position; none at all if the section is empty."""
        for given, expected in (
            ({"service": ["nginx", "php*"], "n": [1, 2.5, True, None]}, None),
            ({"1": "*", "0": 5}, Arguments(((5,), ("*",)))),
            ({}, Arguments()),
        ):
            calls = self.rule(call="x", arguments=given).calls
            assert calls is not None
            names = {"service": ("nginx", "php*"), "n": (1, 2.5, True, None)}
            self.assertEqual(calls.arguments, expected or Arguments(names=names))

    def test_positions_of_yaml(self) -> None:
        """A position is a number or a text of digits."""
        found = self.rules("rules: [{who: '*', call: x, arguments: {0: a, '1': b}}]")
        assert found is not None and found[0].calls is not None
        self.assertEqual(found[0].calls.arguments, Arguments((("a",), ("b",))))

    def test_whose(self) -> None:
        """One's own jobs, all, or those of users, whose groups and tags are looked up at once."""
        self.assertEqual(self.rule(see="own").sees, Whose(own=True))
        rule = self.rule(see=["own", "group:operators", "tag:web"], cancel="all")
        self.assertEqual(rule.sees, Whose(frozenset({"anna", "bert", "panel"}), own=True))
        self.assertEqual(rule.cancels, Whose(all=True))
        self.assertEqual(self.rule(cancel="anna").cancels, Whose(frozenset({"anna"})))

    def test_nothing_by_default(self) -> None:
        """A rule allows what stands in it and nothing else."""
        expected = Rule(Who(everybody=True), None, Whose(), Whose(), True, False)
        self.assertEqual(self.rule(queues=True), expected)


class MistakeTests(RulesTestCase):
    """Every mistake is named with its key and line."""

    def test_rules_that_are_none(self) -> None:
        """The key without a rule is a mistake: it would either allow all or forbid all."""
        for text in ("rules:", "rules: []", "rules: {who: anna}", "rules: all"):
            (found,) = self.mistakes(text)
            self.assertIn("rules, line 1: must be a list of sections", found)
        (found,) = self.mistakes("rules:\n- {who: anna, queues: true}\n- all\n")
        self.assertIn("rules.2, line 3: must be a section", found)

    def test_place(self) -> None:
        """A mistake has the number of its rule and its line; all are found at once."""
        text = (
            "rules:\n- who: anna\n  call: df\n  arguments:\n    x: []\n"
            "- who: nobody\n  cal: df\n  see: group:none\n  administer: 1\n"
        )
        places = [each.partition(": ")[0] for each in self.mistakes(text)]
        self.assertEqual(
            places,
            [
                "rules.1.arguments.x, line 5",
                "rules.2.who, line 6",
                "rules.2.see, line 8",
                "rules.2.administer, line 9",
                "rules.2.call, line 6",
                "rules.2.cal, line 7",
            ],
        )

    def test_unknown_users(self) -> None:
        """A name that no user has is a mistake, wherever one stands, and is repeated."""
        for key in ("who", "see", "cancel"):
            for name in ("carl", "group:web", "tag:operators", "group:", "panel*", "own*"):
                found = self.mistake(**{"queues": True, key: [name, "panel"]})
                self.assertIn(f"rules.1.{key}, line 1: ", found)
                self.assertIn(repr(name), found)
        self.assertIn("there is no user 'own'", self.mistake(who="own", queues=True))
        self.assertIn("there is no user 'anonymous'", self.mistake(see=["anonymous", "anna"]))

    def test_who_is_missing(self) -> None:
        """A rule has to say to whom it applies."""
        self.assertEqual(
            self.mistakes("rules: [{queues: true}]"), ["rules.1.who, line 1: is missing"]
        )

    def test_empty(self) -> None:
        """An empty list allows nothing, so it is not meant."""
        for key in ("who", "call", "hosts", "see", "cancel"):
            keys: dict[str, Any] = {"call": "df", "queues": True, key: []}
            self.assertIn(f"rules.1.{key}, line 1: must not be empty", self.mistake(**keys))
            self.assertIn("must be a text", self.mistake(**keys | {key: [""]}))

    def test_allows_nothing(self) -> None:
        """A rule that allows nothing is a mistake, as is a key that is of no use without call."""
        self.assertIn("call, line 1: is missing", self.mistake())
        self.assertIn("is missing", self.mistake(queues=False, administer=False))
        for key, value in (("hosts", "web*"), ("arguments", {})):
            self.assertIn("is of no use without call", self.mistake(queues=True, **{key: value}))

    def test_own_jobs_of_nobody(self) -> None:
        """Nobody in particular has no jobs of its own."""
        for key in ("see", "cancel"):
            found = self.mistake(who="anonymous", **{key: "own"})
            self.assertIn(f"{key}, line 1: anonymous has no jobs of its own", found)

    def test_arguments(self) -> None:
        """By name or by position, without a gap, each with values that can be compared."""
        found = self.mistake(call="x", arguments={"0": "a", "b": "c"})
        self.assertIn("arguments.b, line 1: is a name", found)
        found = self.mistake(call="x", arguments={"0": "a", "2": "b"})
        self.assertIn("arguments.2, line 1: is a position, and there is none of 1", found)
        values: list[Any] = [[], None, {}, [[1]], [{}], {"a": 1}]
        for value in values:
            found = self.mistake(call="x", arguments={"a": value})
            self.assertIn("arguments.a, line 1: must be a text, a number", found)
        for text in (".nan", ".inf", "2026-01-01"):
            (found,) = self.mistakes(f"rules: [{{who: '*', call: x, arguments: {{a: [{text}]}}}}]")
            self.assertIn("arguments.a, line 1: must be a text, a number", found)
        self.assertIn("arguments, line 1: must be a section", self.mistake(call="x", arguments=[1]))
