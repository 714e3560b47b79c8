"""Tests of secret arguments: their hints, what is told of them, and what may be shown."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harpd.catalogue import MODULE_NAME, CatalogueError, load
from harpd.description import MAX_SHOWN, offer
from harpd.offers import Offer, read_offer
from tests.harpd.zygotes import ZygoteTestCase

IMPORTS = """\
from dataclasses import dataclass
from typing import Annotated, Any, NewType, Optional, TypedDict
from harpd.proc import SECRET, Secret, procedure
"""


class SecretTestCase(SynchronousTestCase):
    """Loads a procedure ``f``."""

    def offered(self, text: str) -> Offer:
        """Return what harpd knows of the procedure."""
        self.addCleanup(sys.modules.pop, MODULE_NAME, None)
        file = os.path.abspath(self.mktemp())
        with open(file, "w") as written:
            written.write(IMPORTS + textwrap.dedent(text))
        return read_offer(json.loads(json.dumps(offer(load(file)["f"]))))[1]

    def f(self, parameters: str) -> Offer:
        """Return the offer of a procedure with these parameters."""
        return self.offered(f"@procedure\ndef f({parameters}): pass\n")

    def shown(self, parameters: str, arguments: Any) -> Any:
        """Return what may be shown of the arguments."""
        found = self.f(parameters).shown
        assert found is not None
        return json.loads(found.arguments(json.dumps(arguments).encode()))

    def mistake(self, text: str) -> str:
        """Return what is wrong with a procedure."""
        with self.assertRaises(CatalogueError) as caught:
            self.offered(text)
        found: str
        (found,) = caught.exception.mistakes
        return found.partition("procedure f: ")[2]


class ShownTests(SecretTestCase):
    """Only what is known not to be secret may be shown."""

    PARAMETERS = "a: int, password: Secret, b=1, *, key: Secret[dict[str, str]] = {}, c=2"

    def test_by_position(self) -> None:
        """The values of secret parameters are replaced, and those that no parameter takes."""
        for given, expected in [
            ([], []),
            ([1], [1]),
            ([1, "x", 3], [1, "(secret)", 3]),
            ([1, {"x": 1}, 3, "y"], [1, "(secret)", 3, "(secret)"]),
        ]:
            self.assertEqual(self.shown(self.PARAMETERS, given), expected)

    def test_by_name(self) -> None:
        """The same by name; a misspelt name may stand before a secret."""
        given = {"c": [1.0], "key": {"k": "v"}, "a": None, "pasword": "x", "password": "y"}
        expected = {
            "c": [1.0],
            "key": "(secret)",
            "a": None,
            "pasword": "(secret)",
            "password": "(secret)",
        }
        self.assertEqual(self.shown(self.PARAMETERS, given), expected)

    def test_rest(self) -> None:
        """A hint of ``*args`` or ``**kwargs`` is one of each of them."""
        self.assertEqual(self.shown("a, *b: Secret", [1, 2, 3]), [1] + 2 * ["(secret)"])
        self.assertEqual(self.shown("a: Secret, *b", [1, 2, 3]), ["(secret)", 2, 3])
        given = {"a": 1, "b": 2}
        self.assertEqual(self.shown("a, **k: Secret", given), {"a": 1, "b": "(secret)"})
        self.assertEqual(self.shown("a: Secret, **k", given), {"a": "(secret)", "b": 2})
        self.assertEqual(self.shown("a: Secret, /, **k", given), {"a": "(secret)", "b": 2})

    def test_forms(self) -> None:
        """Secret can be written in several ways, and be None."""
        for hint in (
            "Secret",
            "Secret[str]",
            "'Secret'",
            "Secret | None",
            "Optional[Secret[str]]",
            "Secret[str] | int",
            "Annotated[Secret, 'doc']",
            "Annotated[str, SECRET]",
            "NewType('Password', Secret)",
        ):
            self.assertEqual(self.shown(f"a: {hint}, b", ["x", 2]), ["(secret)", 2], hint)
        self.assertEqual(self.shown("a: Secret = None", ["x"]), ["(secret)"])

    def test_none(self) -> None:
        """Where nothing is secret nothing is computed."""
        self.assertIsNone(self.f("a: str, *b, **c").shown)

    def test_many(self) -> None:
        """Where there are more parameters than a message can tell of, none is shown."""
        names = [f"name{number}" for number in range(MAX_SHOWN // 10)]
        self.assertEqual(self.shown(f"a: Secret, {', '.join(names)}", [1, 2]), 2 * ["(secret)"])


class HintTests(SecretTestCase):
    """What the hint demands, and what is told of it."""

    def test_described(self) -> None:
        """``describe`` marks the parameter, and does not tell its default."""
        described = json.loads(self.f("a: Secret = 'hunter2', b: Secret[int] = None").description)
        mark = {"writeOnly": True, "format": "password"}
        number = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
        expected = {"a": {"type": "string"} | mark, "b": number | mark}
        self.assertEqual(described["parameters"]["properties"], expected)
        self.assertEqual(set(described) & {"shown", "limits"}, set())

    def test_nested(self) -> None:
        """A hint that says it of a part only is a mistake: the rest would be shown."""
        expected = "parameter a: Secret must stand around the whole hint, as in Secret[list[str]]"
        classes = """
            class Typed(TypedDict):
                password: Secret

            @dataclass
            class Data:
                password: Secret[str]
        """
        for hint in (
            "list[Secret]",
            "dict[str, Secret[str]] | None",
            "tuple[int, Secret]",
            "set[Secret]",
            "Typed",
            "list[Data]",
            "Data",
        ):
            text = f"{textwrap.dedent(classes)}\n@procedure\ndef f(a: {hint}): pass\n"
            self.assertEqual(self.mistake(text), expected, hint)

    def test_not_understood(self) -> None:
        """A hint of which it is not clear whether it is secret is a mistake, others are none."""
        found = self.mistake("@procedure\ndef f(a: 'Secret[Unknown]'): pass")
        self.assertEqual(found, "parameter a: the hint 'Secret[Unknown]' can't be read")
        found = self.mistake("del Secret\n@procedure\ndef f(a: 'Secret'): pass")
        self.assertEqual(found, "parameter a: the hint 'Secret' can't be read")
        self.assertIsNone(self.f("a: 'Unknown'").shown)


class CallTests(ZygoteTestCase):
    """A call gets the plain values, and an error never has them."""

    def test_call(self) -> None:
        """Values that fit are as they were given; of those that don't no part is told."""
        zygote = self.zygote("""
            from harpd.proc import Secret

            @procedure
            def f(a: Secret, b: Secret[dict[str, int]] = {}, *c: Secret[list[int]], **d: Secret):
                return [a, b, c, d]
        """)
        reply = json.loads(zygote.start("f", '["x",{"y":1},[2]]').to_end()[0])
        self.assertEqual(reply, {"result": ["x", {"y": 1}, [[2]], {}]})
        for arguments, path in [
            ("[4711]", "$.a"),
            ('["x",{"hunter2":"4711"}]', "$.b"),
            ('["x",{},[["hunter2"]]]', "$.c[0]"),
            ('{"a":"x","d":{"hunter2":"4711"}}', "$.d"),
            ('["hunter2"', None),
        ]:
            replied, printed = zygote.start("f", arguments).to_end()
            said = (replied + printed).decode()
            self.assertNotIn("hunter2", said)
            self.assertNotIn("4711", said)
            error = json.loads(replied)["error"]
            if path is not None:
                self.assertEqual(error["data"]["path"], path)
