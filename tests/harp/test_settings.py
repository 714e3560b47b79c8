"""Tests of ``harp.settings``."""

from __future__ import annotations

import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harp.settings import ConfigError, Section, read


class SettingsTestCase(SynchronousTestCase):
    """Reads files written for the test."""

    def file(self, text: str | bytes) -> Path:
        """Write a file and return its path."""
        path = Path(self.mktemp())
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return path

    def values(self, text: str, *getters: Callable[[Section], Any]) -> list[Any]:
        """Return what the getters give for a file without mistakes."""
        with read(self.file(text)) as section:
            return [get(section) for get in getters]

    def mistakes(self, text: str | bytes, *getters: Callable[[Section], Any]) -> list[str]:
        """Return what is said about a file, without the file's name at its beginning."""
        path = self.file(text)
        with self.assertRaises(ConfigError) as caught, read(path) as section:
            for get in getters:
                get(section)
        error = caught.exception
        self.assertEqual(str(error), "\n".join(error.mistakes))
        prefix = f"{path}: "
        for mistake in error.mistakes:
            self.assertTrue(mistake.startswith(prefix), mistake)
        return [mistake.removeprefix(prefix) for mistake in error.mistakes]


class GetterTests(SettingsTestCase):
    """Each getter gives its value or its default."""

    def test_text(self) -> None:
        """A text is a string that is not empty."""
        get = [lambda s: s.text("a"), lambda s: s.text("b", "default")]
        self.assertEqual(self.values("a: one\n", *get), ["one", "default"])
        for value in ("1", "true", "[x]", "''", "{x: y}"):
            (mistake,) = self.mistakes(f"\na: {value}\n", get[0])
            self.assertIn("a, line 2: must be a text", mistake)
        self.assertEqual(self.mistakes("b: x\n", *get), ["a, line 1: is missing"])

    def test_scalars(self) -> None:
        """Texts, numbers, true, false and null: at least one, and none that JSON has not."""
        get = [lambda s: s.scalars("a")]
        for value, expected in (
            ("x", ["x"]),
            ("5", [5]),
            ("false", [False]),
            ("[x, 5, 1.5, true, null, '']", ["x", 5, 1.5, True, None, ""]),
        ):
            self.assertEqual(self.values(f"a: {value}\n", *get), [expected])
        for value in (
            "",
            "[]",
            "{}",
            "[[x]]",
            "[{x: y}]",
            ".nan",
            "[-.inf]",
            "2026-01-01",
            "!!binary x",
        ):
            (mistake,) = self.mistakes(f"\na: {value}\n", *get)
            self.assertIn("a, line 2: must be a text, a number", mistake)
        self.assertEqual(self.mistakes("{}", *get), ["a, line 1: is missing"])

    def test_sections(self) -> None:
        """A list of mappings, each named by its place; what is unknown in one is told of."""
        text = "a:\n- x: 1\n- x: 2\n"
        found = self.values(
            text, lambda s: [each.integer("x", 0, 0, 9) for each in s.sections("a")]
        )
        self.assertEqual(found, [[1, 2]])
        found = self.mistakes("a:\n- {}\n- x\n- y: 1\n", lambda s: s.sections("a"))
        self.assertEqual(
            found,
            [
                "a.2, line 3: must be a section with keys of its own",
                "a.3.y, line 4: is not a key that is known here",
            ],
        )
        for text in ("a:", "a: []", "a: x", "a: {x: 1}", "{}"):
            (mistake,) = self.mistakes(text, lambda s: s.sections("a"))
            self.assertIn("a, line 1: must be a list of sections", mistake)

    def test_names(self) -> None:
        """A name or number, or a list of them, or nothing."""
        get = [lambda s: s.names("a", "a name"), lambda s: s.names("b", "a name")]
        for value, expected in (("x", "x"), ("5", 5), ("[x, 5]", ["x", 5])):
            self.assertEqual(self.values(f"a: {value}\n", *get), [expected, None])
        for value in ("", "''", "[]", "true", "[x, '']", "1.5", "{x: y}"):
            (mistake,) = self.mistakes(f"a: {value}\n", get[0])
            self.assertIn("a, line 1: must be a name, not ", mistake)

    def test_folder(self) -> None:
        """Relative paths start at the folder of the file."""
        file = self.file("")
        with read(file) as section:
            self.assertEqual(section.folder, file.absolute().parent)

    def test_optional_text(self) -> None:
        """A text that may be left out, not emptied."""
        get = [lambda s: s.optional_text("a"), lambda s: s.optional_text("b")]
        self.assertEqual(self.values("a: one\n", *get), ["one", None])
        (mistake,) = self.mistakes("a:\n", get[0])
        self.assertIn("a, line 1: must be a text", mistake)

    def test_texts(self) -> None:
        """One text is a list of one."""
        get = [
            lambda s: s.texts("a", []),
            lambda s: s.texts("b", []),
            lambda s: s.texts("c", ["d"]),
        ]
        self.assertEqual(
            self.values("a: one\nb: [one, two]\n", *get), [["one"], ["one", "two"], ["d"]]
        )
        for value in ("1", "[one, 2]", "['']", "{x: y}"):
            (mistake,) = self.mistakes(f"a: {value}\n", get[0])
            self.assertIn("a, line 1: must be a text or a list of texts", mistake)

    def test_integer(self) -> None:
        """A whole number is within its limits, both included."""
        get = [lambda s: s.integer("a", None, 1, 5), lambda s: s.integer("b", 3, 1, 5)]
        self.assertEqual(self.values("a: 1\n", *get), [1, 3])
        self.assertEqual(self.values("a: 5\n", *get), [5, 3])
        for value in ("0", "6", "1.0", "one", "true", "[1]"):
            (mistake,) = self.mistakes(f"a: {value}\n", *get)
            self.assertIn("a, line 1: must be a whole number from 1 to 5", mistake)
        self.assertEqual(self.mistakes("", *get), ["a, line 1: is missing"])

    def test_port(self) -> None:
        """A port is a whole number from 1 to 65535."""
        get = [lambda s: s.port("a", 1), lambda s: s.port("b", 4306)]
        self.assertEqual(self.values("a: 65535\n", *get), [65535, 4306])
        for value in ("0", "65536", "http"):
            (mistake,) = self.mistakes(f"a: {value}\n", *get)
            self.assertIn("from 1 to 65535", mistake)

    def test_seconds(self) -> None:
        """A length of time is a number above 0."""
        get = [lambda s: s.seconds("a", 1), lambda s: s.seconds("b", 600)]
        self.assertEqual(self.values("a: 0.5\n", *get), [0.5, 600])
        self.assertEqual(self.values("a: 30\n", *get), [30.0, 600])
        for value in ("0", "-1", ".inf", ".nan", "10s", "true"):
            (mistake,) = self.mistakes(f"a: {value}\n", *get)
            self.assertIn("a, line 1: must be a number of seconds above 0", mistake)

    def test_hours(self) -> None:
        """A length of time in hours comes as seconds; left out, it is none at all."""
        get = [lambda s: s.hours("a"), lambda s: s.hours("b")]
        self.assertEqual(self.values("a: 0.5\n", *get), [1800.0, None])
        for value in ("0", "-1", ".inf", ".nan", "1h", "true", "null"):
            (mistake,) = self.mistakes(f"a: {value}\n", *get)
            self.assertIn("a, line 1: must be a number of hours above 0", mistake)

    def test_fraction(self) -> None:
        """A part of a whole is above 0, and may be all of it."""
        get = [lambda s: s.fraction("a", 0.5), lambda s: s.fraction("b", 0.5)]
        self.assertEqual(self.values("a: 0.25\n", *get), [0.25, 0.5])
        self.assertEqual(self.values("a: 1\n", *get), [1.0, 0.5])
        for value in ("0", "-0.5", "1.01", ".nan", "50%", "true"):
            (mistake,) = self.mistakes(f"a: {value}\n", *get)
            self.assertIn("a, line 1: must be a number above 0, up to 1", mistake)

    def test_optional_integer(self) -> None:
        """A whole number that may be left out, not emptied."""
        get = [lambda s: s.optional_integer("a", 1, 5), lambda s: s.optional_integer("b", 1, 5)]
        self.assertEqual(self.values("a: 5\n", *get), [5, None])
        for value in ("0", "6", "", "one"):
            (mistake,) = self.mistakes(f"a: {value}\n", *get)
            self.assertIn("a, line 1: must be a whole number from 1 to 5", mistake)

    def test_choice(self) -> None:
        """One of several texts; what stands there instead is not repeated."""
        get = [lambda s: s.choice("a", "red", ["red", "blue"])]
        self.assertEqual(self.values("a: blue\n", *get), ["blue"])
        self.assertEqual(self.values("", *get), ["red"])
        self.assertEqual(
            self.mistakes("a: s3cret\n", *get), ["a, line 1: must be one of red, blue"]
        )
        (mistake,) = self.mistakes("a: 1\n", *get)
        self.assertIn("a, line 1: must be a text", mistake)

    def test_section(self) -> None:
        """A section's keys are read like those of the file."""
        with read(self.file("network:\n  port: 1\n  tls: {on: x}\n")) as root:
            network = root.section("network")
            self.assertEqual(network.port("port", 4306), 1)
            self.assertEqual(network.keys(), ["port", "tls"])
            self.assertIn("port", network)
            self.assertNotIn("address", network)
            tls = network.section("tls")
            self.assertEqual(tls.name("on"), "network.tls.on")
            self.assertEqual(tls.text("on"), "x")

    def test_section_is_missing(self) -> None:
        """A section that is not there is one mistake; its keys are not mistakes too."""
        self.assertEqual(
            self.mistakes("a: 1\n", lambda s: s.port("a", 1), lambda s: s.section("b").text("c")),
            ["b, line 1: is missing"],
        )
        self.assertEqual(
            self.mistakes("\nb: text\n", lambda s: s.section("b").text("c")),
            ["b, line 2: must be a section with keys of its own"],
        )

    def test_empty_file(self) -> None:
        """A file without keys has the defaults."""
        for text in ("", "# nothing\n"):
            self.assertEqual(self.values(text, lambda s: s.port("port", 4306)), [4306])

    def test_anchors(self) -> None:
        """A value that stands elsewhere in the file is read from there."""
        get = [lambda s: s.texts("a", []), lambda s: s.texts("b", [])]
        self.assertEqual(self.values("a: &x [one]\nb: *x\n", *get), [["one"], ["one"]])


class MistakeTests(SettingsTestCase):
    """Every mistake is named, all of them at once."""

    def test_several_at_once(self) -> None:
        """One reading finds all mistakes, with their keys and lines."""
        found = self.mistakes(
            """\
            network:
              port: high
              adress: 0.0.0.0
            timeout: 0
            timeout: 5
            colour: red
            """,
            lambda s: s.section("network").port("port", 4306),
            lambda s: s.seconds("timeout", 600),
            lambda s: s.text("file"),
        )
        self.assertEqual(
            found,
            [
                "timeout, line 5: stands twice",
                "network.port, line 2: must be a whole number from 1 to 65535, not a text",
                "file, line 1: is missing",
                "colour, line 6: is not a key that is known here",
                "network.adress, line 3: is not a key that is known here",
            ],
        )

    def test_missing_in_a_section(self) -> None:
        """A key that is missing in a section is looked for where the section begins."""
        found = self.mistakes("a: 1\nb:\n  c: 1\n", lambda s: s.section("b").text("d"))
        self.assertEqual(found[0], "b.d, line 3: is missing")

    def test_value_is_not_told(self) -> None:
        """A text that stands where it should not may be a password and is not repeated."""
        (mistake,) = self.mistakes("port: s3cret\n", lambda s: s.port("port", 1))
        self.assertNotIn("s3cret", mistake)
        (mistake,) = self.mistakes("password: 12345\n", lambda s: s.text("password"))
        self.assertNotIn("12345", mistake)
        self.assertIn("not a number", mistake)

    def test_kind_of_value_is_told(self) -> None:
        """What stands there instead is told in words of the file, not of the program."""
        for value, told in [
            ("70000", "70000"),
            ("0.5", "0.5"),
            ("yes", "true"),
            ("text", "a text"),
            ("''", "an empty text"),
            ("", "nothing"),
            ("[1]", "a list"),
            ("{a: 1}", "a section"),
            ("2026-01-01", "a date"),
        ]:
            (mistake,) = self.mistakes(f"port: {value}\n", lambda s: s.port("port", 1))
            self.assertTrue(mistake.endswith(f"from 1 to 65535, not {told}"), mistake)

    def test_own_mistake(self) -> None:
        """What a daemon finds wrong with a value is named like the rest."""
        found = self.mistakes("a: x\n", lambda s: s.text("a"), lambda s: s.mistake("a", "no file"))
        self.assertEqual(found, ["a, line 1: no file"])

    def test_value_that_yaml_cannot_build(self) -> None:
        """A tag that is not known and a date that there is not are mistakes of their key."""
        values = ["!python/object:os.system x", "2026-13-45", "0b_", "!!bool x", "!!int ''"]
        values += [
            "!!timestamp x",
            "!!float ''",
            "!x [a]",
            r'"a\0"',
            r'"\ud800"',
            "1:" * 300 + "1.5",
        ]
        for value in [*values, "9" * 5000, "0x" + "f" * 5000]:
            (mistake,) = self.mistakes(f"a: {value}\n", lambda s: s.text("a"))
            self.assertIn("a, line 1: must be a text, not a value that YAML can't build", mistake)

    def test_numbers_that_fit_nowhere(self) -> None:
        """A number of any length is a mistake where a number is wanted, too."""
        for value in ("9" * 400, "-" + "9" * 400, "0x" + "f" * 5000, "1:" * 300 + "1"):
            for get in (lambda s: s.seconds("a", 1), lambda s: s.port("a", 1)):
                (mistake,) = self.mistakes(f"a: {value}\n", get)
                self.assertLess(len(mistake), 200)

    def test_aliases(self) -> None:
        """A few lines that would be a billion values are never built."""
        bomb = ["a0: &a0 {x: 1}\n"]
        bomb += [f"a{n}: &a{n} {{<<: [{f'*a{n - 1}, ' * 9}]}}\n" for n in range(1, 10)]
        text = "".join(bomb) + "z: [*a9]\n"
        found = self.mistakes(text, lambda s: s.text("a9"), lambda s: s.texts("z", []))
        self.assertIn("a9, line 10: must be a text, not a section", found)
        self.assertIn("z, line 11: must be a text or a list of texts, not a list", found)

    def test_keys_that_are_no_texts(self) -> None:
        """A template that was not filled in is told without what stands in it."""
        for key in ("{{ s3cret }}", "[s3cret]", '"s3cret\\0"'):
            self.assertEqual(
                self.mistakes(f"a: {{b: 1}}\n? {key}\n: 1\n", lambda s: s.section("a").text("b")),
                [
                    "line 2: must have keys that are texts",
                    "a.b, line 1: must be a text, not a number",
                ],
            )

    def test_mistakes_are_printable(self) -> None:
        """A key can neither forge a mistake nor fill the terminal."""
        (mistake,) = self.mistakes(r'"a\e[2J\n\u202e' + "x" * 1000 + '": 1')
        self.assertTrue(mistake.isprintable())
        self.assertTrue(mistake.startswith(r"a\x1b[2J\n\u202exxx"))
        self.assertLess(len(mistake), 400)

    def test_mistake_of_a_key_that_is_not_read(self) -> None:
        """A key that something is wrong with as such is one mistake, not an unknown key too."""
        found = self.mistakes("a: x\n", lambda s: s.mistake("a", "is of no use"))
        self.assertEqual(found, ["a, line 1: is of no use"])

    def test_not_yaml(self) -> None:
        """A file that is not YAML is told with the place where it breaks, and why."""
        for text, place, why in (
            ("a: [1\nb: 2\n", "line 2, column 2", "expected ',' or ']', but got ':'"),
            ("a: 'open\n", "line 2, column 1", "unexpected end of stream"),
            ("a: 1\n---\nb: 2\n", "line 2, column 1", "another document"),
            ("a:\n\tb: 1\n", "line 2, column 1", r"'\t' that cannot start any token"),
        ):
            (mistake,) = self.mistakes(text)
            self.assertTrue(mistake.startswith(f"{place}: is not YAML: "), mistake)
            self.assertIn(why, mistake)
            self.assertNotIn("\n", mistake)

    def test_not_text(self) -> None:
        """A file that is not UTF-8, or holds what YAML does not allow, is told so."""
        for data, told in (
            (b"a: \xff\n", "line 1, column 4: is not UTF-8"),
            ("a: 1\né: \x00\n".encode(), "line 2, column 4: may not have the character #x00"),
        ):
            self.assertEqual(self.mistakes(data), [told])

    def test_nested_too_deep(self) -> None:
        """A file that YAML can't take for its depth is a mistake like any other."""
        self.assertEqual(self.mistakes("a: " + "[" * 10_000), ["is nested too deep"])

    def test_text_is_not_told(self) -> None:
        """What can't be parsed may be a password; nothing of it is repeated, nor kept."""
        for text in (
            "password: s3cret: x\n",
            "password: 's3cret\n",
            "password: *s3cret\n",
            "a: &s3cret x\nb: &s3cret y\n",
            "password: !s3cret!x y\n",
            "password: [s3cret: x\nb",
            "password: |s3cret\n x",
            "password: @s3cret",
            "s3cret\nb: 1\n",
            b"password: s3cret\xff\n",
            "password: s3cret\x00\n",
        ):
            path = self.file(text)
            with self.assertRaises(ConfigError) as caught, read(path):
                self.fail("the body ran")
            shown = "".join(traceback.format_exception(caught.exception))
            self.assertNotIn("s3c", shown)
            self.assertNotIn("'s'", shown)

    def test_not_a_mapping(self) -> None:
        """A file that is a list or a text is told what it must be."""
        for text in ("- a\n- b\n", "text\n", "null\n"):
            self.assertEqual(self.mistakes(text), ["must be a mapping of keys to values"])

    def test_unreadable(self) -> None:
        """A file that can't be read is told with the system's reason."""
        folder = Path(self.mktemp())
        folder.mkdir()
        for path, reason in [
            (folder, "Is a directory"),
            (folder / "none.yaml", "No such file or directory"),
        ]:
            with self.assertRaises(ConfigError) as caught, read(path):
                self.fail("the body ran")
            self.assertEqual(caught.exception.mistakes, [f"{path}: can't be read: {reason}"])

    def test_failure_of_the_body(self) -> None:
        """What the body raises is not hidden by the mistakes found so far."""
        with self.assertRaises(ZeroDivisionError), read(self.file("a: 1\n")) as section:
            section.text("a")
            raise ZeroDivisionError
