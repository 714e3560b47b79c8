"""A YAML file read key by key, so that every mistake in it is named with its key and line.

Which keys there are is said by the ``config`` module of each daemon; this one knows none of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from harp.logs import printable, shown

T = TypeVar("T")
Scalar = str | int | float | bool | None

MAX_PORT = 65535

MAX_DEPTH = 50
"""How deep lists and mappings may stand in each other; a few are needed."""

Contents = Callable[[Path], bytes]
"""Returns what is in a file; raises OSError."""


class ConfigError(Exception):
    """The configuration can't be used.

    :param mistakes: one sentence each, with the file, the key and its line.
    """

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class Section:
    """One mapping of the file. Each key is asked for once; what nobody asks for is a mistake.

    A getter that finds a mistake notes it and returns a value of the right type, so that one
    reading finds all of them. A key without ``default`` must be there.

    :ivar contents: returns what is in a file that the configuration names.
    """

    def __init__(
        self,
        file: Path,
        path: str,
        node: yaml.MappingNode,
        mistakes: list[str],
        contents: Contents = Path.read_bytes,
    ) -> None:
        self.contents = contents
        self._file = file
        self._path = path
        self._line = node.start_mark.line + 1
        self._mistakes = mistakes
        self._children: list[Section] = []
        self._nodes: dict[str, yaml.Node] = {}
        self._asked: set[str] = set()
        for key_node, value in node.value:
            key = _readable(key_node)
            if key is None:
                place = f"{path}, line" if path else "line"
                self._note(f"{place} {_line(key_node)}: {_NO_KEY}")
                continue
            if key in self._nodes:
                self._note(f"{self.name(key)}, line {_line(key_node)}: stands twice")
            self._nodes[key] = value

    @property
    def folder(self) -> Path:
        """Where relative paths start: the folder of this file."""
        return self._file.absolute().parent

    def name(self, key: str) -> str:
        """Return the key with all keys above it, as in ``network.port``."""
        return f"{self._path}.{shown(key)}" if self._path else shown(key)

    def mistake(self, key: str, what: str) -> None:
        """Note what is wrong with a key, which then need not be asked for."""
        self._asked.add(key)
        line = _line(self._nodes[key]) if key in self._nodes else self._line
        self._note(f"{self.name(key)}, line {line}: {what}")

    def text(self, key: str, default: str | None = None, empty: bool = False) -> str:
        """Return a string, which must not be empty unless that is allowed."""
        value = self._value(key, default)
        if isinstance(value, str) and (value or empty):
            return value
        return self._wrong(key, value, "a text", "")

    def octal(self, key: str, maximum: int) -> int:
        """Return a number that is written as in chmod(1), in digits from 0 to 7 behind a 0."""
        self._asked.add(key)
        node = self._nodes.get(key)
        # As it is written: YAML takes 022 for 18, 22 for 22 and 0o22 for a text.
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        if (
            re.fullmatch("0o?[0-7]+", text)
            and (number := int(text.lstrip("0o") or "0", 8)) <= maximum
        ):
            return number
        self.mistake(key, f"must be an octal number from 0 to 0{maximum:o} that begins with 0")
        return 0

    def optional_text(self, key: str) -> str | None:
        """Return a string, None if the key is not there."""
        return self.text(key) if key in self else None

    def texts(self, key: str, default: list[str]) -> list[str]:
        """Return a list of strings; one string alone is a list of one."""
        value = self._value(key, default)
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list) and all(isinstance(item, str) and item for item in value):
            return value
        return self._wrong(key, value, "a text or a list of texts", default)

    def integer(self, key: str, default: int | None, minimum: int, maximum: int) -> int:
        """Return a whole number between two limits, both included."""
        value = self._value(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
            return value
        return self._wrong(key, value, f"a whole number from {minimum} to {maximum}", minimum)

    def port(self, key: str, default: int) -> int:
        """Return the number of a TCP port."""
        return self.integer(key, default, 1, MAX_PORT)

    def seconds(self, key: str, default: float) -> float:
        """Return a length of time in seconds, more than none."""
        return self._above_zero(key, default, "a number of seconds above 0", math.inf)

    def hours(self, key: str) -> float | None:
        """Return a length of time in hours, more than none, as seconds; None if it is not there."""
        if key not in self:
            return None
        return 3600 * self._above_zero(key, 1.0, "a number of hours above 0", math.inf)

    def fraction(self, key: str, default: float) -> float:
        """Return a number above 0, up to 1."""
        wanted = "a number above 0, up to 1"
        return self._above_zero(key, default, wanted, math.nextafter(1, 2))

    def optional_integer(self, key: str, minimum: int, maximum: int) -> int | None:
        """Return a whole number between two limits, None if the key is not there."""
        return self.integer(key, minimum, minimum, maximum) if key in self else None

    def choice(self, key: str, default: str, choices: Sequence[str]) -> str:
        """Return one of several texts."""
        value = self.text(key, default)
        if value and value not in choices:
            self.mistake(key, f"must be one of {', '.join(choices)}")
            return default
        return value or default

    def names(self, key: str, wanted: str) -> str | int | list[str | int] | None:
        """Return a name or number, or a list of them; None if the key is not there.

        :param wanted: what it must be, for a mistake.
        """
        value = self._value(key, None)
        items = value if isinstance(value, list) else [value]
        if key not in self or (items and all(_is_name(item) for item in items)):
            return value  # type: ignore[no-any-return]
        return self._wrong(key, value, wanted, None)

    def flag(self, key: str, default: bool = False) -> bool:
        """Return true or false."""
        value = self._value(key, default)
        return (
            value if isinstance(value, bool) else self._wrong(key, value, "true or false", default)
        )

    def scalars(self, key: str) -> list[Scalar]:
        """Return a list of texts, numbers, true, false and null; one of them alone is a list of it.

        It is not empty unless there is a mistake: neither is a key without a value.
        """
        value = self._value(key, None)
        items = value if isinstance(value, list) else [value]
        if value is not None and items and all(_is_scalar(item) for item in items):
            return items
        return self._wrong(key, value, "a text, a number, true or false, or a list of such", [])

    def section(self, key: str) -> Section:
        """Return the mapping under a key."""
        self._asked.add(key)
        node = self._nodes.get(key)
        if node is None:
            self.mistake(key, "is missing")
        elif not isinstance(node, yaml.MappingNode):
            self.mistake(key, "must be a section with keys of its own")
        if not isinstance(node, yaml.MappingNode):
            return Section(self._file, self.name(key), _empty(), [], self.contents)
        child = Section(self._file, self.name(key), node, self._mistakes, self.contents)
        self._children.append(child)
        return child

    def sections(self, key: str) -> list[Section]:
        """Return the mappings of a list, each named by its place in it, from 1, as in ``rules.1``.

        It is not empty unless there is a mistake.
        """
        self._asked.add(key)
        node = self._nodes.get(key)
        items = node.value if isinstance(node, yaml.SequenceNode) else []
        if not items:
            self.mistake(key, "must be a list of sections with keys of their own, at least one")
        found = []
        for number, item in enumerate(items, 1):
            name = f"{self.name(key)}.{number}"
            if isinstance(item, yaml.MappingNode):
                found.append(Section(self._file, name, item, self._mistakes))
            else:
                self._note(f"{name}, line {_line(item)}: must be a section with keys of its own")
        self._children += found
        return found

    def keys(self) -> list[str]:
        """Return the keys that are there, in their order."""
        return list(self._nodes)

    def __contains__(self, key: str) -> bool:
        return key in self._nodes

    def report_unknown(self) -> None:
        """Note every key that nobody asked for, here and below."""
        for key in self._nodes:
            if key not in self._asked:
                self.mistake(key, "is not a key that is known here")
        for child in self._children:
            child.report_unknown()

    def _value(self, key: str, default: object) -> Any:
        self._asked.add(key)
        node = self._nodes.get(key)
        if node is None:
            return default
        if not isinstance(node, yaml.SequenceNode):
            return _built(node)
        if node.tag != _LIST:
            return ValueError("no list")
        return [_built(item) for item in node.value]

    def _above_zero(self, key: str, default: float, wanted: str, below: float) -> float:
        value = self._value(key, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and 0 < value < below:
            return float(value)
        return self._wrong(key, value, wanted, default)

    def _wrong(self, key: str, value: object, wanted: str, instead: T) -> T:
        if value is None and key not in self._nodes:
            self.mistake(key, "is missing")
        else:
            # A value is repeated only where a number is wanted: it may be a password elsewhere.
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            shown = (
                "a number" if is_number and not isinstance(instead, int | float) else _shown(value)
            )
            self.mistake(key, f"must be {wanted}, not {shown}")
        return instead

    def _note(self, mistake: str) -> None:
        self._mistakes.append(f"{self._file}: {printable(mistake)}")


@contextmanager
def read(
    file: Path, contents: Contents = Path.read_bytes, *, partly: bool = False
) -> Iterator[Section]:
    """Give the file's keys to the body of a ``with`` statement.

    :param contents: returns what is in this file and in those that it names.
    :param partly: whether keys that nobody asks for are somebody else's, and no mistake.
    :raises ConfigError: if the file can't be read; after the body, if there was any mistake.
    """
    try:
        node = _compose(contents(file))
    except OSError as error:
        raise ConfigError([f"{file}: can't be read: {error.strerror}"]) from error
    except _NotYamlError as error:
        raise ConfigError([f"{file}: {error}"]) from None  # the cause shows the file's text
    if node is not None and not isinstance(node, yaml.MappingNode):
        raise ConfigError([f"{file}: must be a mapping of keys to values"])
    mistakes: list[str] = []
    root = Section(file, "", node or _empty(), mistakes, contents)
    yield root
    if not partly:
        root.report_unknown()
    if mistakes:
        raise ConfigError(mistakes)


class _NotYamlError(Exception):
    """Says where and why, without any text of the file, which may be a password."""


def _compose(data: bytes) -> yaml.Node | None:
    try:
        text = data.decode()
        return yaml.compose(text, Loader=_Loader)
    except UnicodeDecodeError as error:
        raise _NotYamlError(f"{_position(data[: error.start])}: is not UTF-8") from None
    except yaml.reader.ReaderError as error:
        what = f"may not have the character #x{error.character:02x}"
        raise _NotYamlError(f"{_position(text[: error.position].encode())}: {what}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = _QUOTED.sub(_unless_text, " ".join(filter(None, (error.context, error.problem))))
        raise _NotYamlError(f"{place}is not YAML: {what}") from None


class _Loader(yaml.SafeLoader):
    """Stops at a depth that no configuration has."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self._depth >= MAX_DEPTH:
            raise _NotYamlError("is nested too deep")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _built(node: yaml.Node) -> Any:
    """Return the value of a scalar, else no more than what kind of value it is.

    So a few aliases can't become a million values. An exception stands for what has none.
    """
    if not isinstance(node, yaml.ScalarNode):
        return [] if isinstance(node, yaml.SequenceNode) else {}
    if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
        return ValueError("it would take long, and fit nowhere")
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except Exception as error:  # also LookupError and AttributeError, of a tag that does not fit
        return error
    return value if not isinstance(value, str) or _is_usable(value) else ValueError("no text")


def _readable(node: yaml.Node) -> str | None:
    """Return a key, None if it is no text; what was meant as one might be a password."""
    is_text = isinstance(node, yaml.ScalarNode) and _is_usable(node.value)
    return str(node.value) if is_text else None


def _is_usable(text: str) -> bool:
    """Tell whether a text could be the name of a file or a user: in UTF-8, and without NUL."""
    return _UNUSABLE.search(text) is None


_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_NO_KEY = "must have keys that are texts"
_LIST = "tag:yaml.org,2002:seq"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_LONGEST_NUMBER = 100  # characters

_QUOTED = re.compile("'[^']*'")


def _unless_text(quoted: re.Match[str]) -> str:
    """Return what the parser quoted, if it is punctuation or the name of a token."""
    is_text = re.search(r"\w", quoted[0]) and not quoted[0].startswith(("'<", "'\\"))
    return "'…'" if is_text else quoted[0]


def _position(before: bytes) -> str:
    """Return where in the file a place is, from all that comes before it."""
    *lines, last = before.split(b"\n")
    return f"line {len(lines) + 1}, column {len(last.decode()) + 1}"


def _is_name(value: object) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number or (isinstance(value, str) and bool(value))


def _is_scalar(value: object) -> bool:
    is_json = not isinstance(value, float) or math.isfinite(value)
    return is_json and (value is None or isinstance(value, str | int | float | bool))


def _shown(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool() | int() | float():
            return str(value).lower()
        case str():
            return "a text" if value else "an empty text"
        case list():
            return "a list"
        case dict():
            return "a section"
        case Exception():
            return "a value that YAML can't build"
        case _:
            return f"a {type(value).__name__}"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _empty() -> yaml.MappingNode:
    mark = yaml.Mark("", 0, 0, 0, "", 0)
    return yaml.MappingNode("tag:yaml.org,2002:map", [], mark, mark)
