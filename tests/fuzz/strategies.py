"""Inputs that are nearly right: good ones with a few changes, for hypothesis."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import yaml
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.fuzz.files import SECRET

Draw = Callable[[st.SearchStrategy[Any]], Any]


def examples(count: int) -> settings:
    """Return settings for so many examples, however long each takes."""
    health = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=count, deadline=None, print_blob=True, suppress_health_check=health
    )


_PIECES = [
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"-", b".", b" ", b"\n", b"\r\n", b"\0"),
    *(b"\\ud800", b"\\u0000", b"\\u001b", b"\xff", b"\x1b", b"\xc2\x9b", b"\xe2\x80\xae"),
    *(b"1e999", b"9" * 400, b"18446744073709551616", b"0x1", b"1.0", b"true", b"null", b"NaN"),
    *(b'"harp":1,', b'"harpcaller":1,', b'"a":{},"a":1,', b'"\\u001b[2J":1,', b'{"stream":1}\n'),
    *(b'"auth":{"user":"u","password":"p"},', b'"auth":{"token":"t"},', b'"detail":{},'),
    *(b"[" * 2000, b'{"a":' * 2000, b"x" * 3000),
]


_BORDER = re.compile(rb"[{}\[\],:\n]")


@st.composite
def edited(draw: Draw, samples: Sequence[bytes]) -> bytes:
    """Give a sample with a few bytes left out, put in or repeated."""
    data: bytes = draw(st.sampled_from(samples))
    for _ in range(draw(st.integers(1, 3))):
        borders = [0, *(found.end() for found in _BORDER.finditer(data))]
        start = draw(st.sampled_from(borders) | st.integers(0, len(data)))
        end = start + draw(st.sampled_from([0, 0, 1, 5, 40]))
        piece = draw(st.sampled_from([*_PIECES, data[start:end] * 2]) | st.binary(max_size=4))
        data = data[:start] + piece + data[end:]
    return data


class _Object(list[Any]):
    """A JSON object as its keys and values, for they may repeat; texts of JSON are its leaves."""


_VALUES = [
    *('""', "0", "-1", "1", "1.5", "1e308", "1e999", "9" * 25, "9" * 400, "true", "false", "null"),
    *("[]", "{}", "[1]", '{"a":1}', '{"a":1,"a":1}', r'"\u001b[2J"', r'"\ud800"', '"\x9b\u202e"'),
    *(f'"{"x" * 300}"', "[" * 2000 + "]" * 2000, '{"a":' * 2000 + "1" + "}" * 2000, "NaN", '"1"'),
]
_KEYS = [
    r"\u001b[2J",
    "\x9b\u202e",
    "x" * 300,
    r"\u0061",
    "a",
    "harp",
    "harpcaller",
    "auth",
    "token",
]
_KEYS += ["token", "password", "arguments", "context", "queue", "detail", "describe", "cancel"]


@st.composite
def mutated_json(draw: Draw, samples: Sequence[bytes]) -> bytes:
    """Give a sample, which is JSON, with keys left out, repeated, renamed and of other values."""
    root = _tree(json.loads(draw(st.sampled_from(samples)), object_pairs_hook=_Object))
    for _ in range(draw(st.integers(1, 3))):
        places = _places(root)
        if not places:
            break
        place = draw(st.sampled_from(places))
        at = draw(st.integers(0, len(place) - 1))
        is_pair = isinstance(place, _Object)
        key, value = place[at] if is_pair else ("", place[at])
        match draw(st.sampled_from(["delete", "repeat", "rename", "add", "replace"])):
            case "delete":
                del place[at]
                continue
            case "repeat":
                place.append(place[at])
                continue
            case "rename":
                key = draw(st.sampled_from(_KEYS))
            case "add":
                place.append(place[at])
                key = draw(st.sampled_from(_KEYS))
            case _:
                value = draw(st.sampled_from(_VALUES) | st.text(max_size=5).map(_text))
        place[at] = (key, value) if is_pair else value
    return _written(root).encode(errors="surrogatepass")


def _tree(value: Any) -> Any:
    match value:
        case _Object():
            return _Object((_text(key)[1:-1], _tree(each)) for key, each in value)
        case list():
            return [_tree(each) for each in value]
        case _:
            return _text(value)


def _places(tree: Any) -> list[list[Any]]:
    """Return the objects and lists in which there is something."""
    if not isinstance(tree, list):
        return []
    inner = [each for _, each in tree] if isinstance(tree, _Object) else tree
    found = [place for each in inner for place in _places(each)]
    return [tree, *found] if tree else found


def _written(tree: Any) -> str:
    match tree:
        case _Object():
            pairs = ",".join(f'"{key}":{_written(each)}' for key, each in tree)
            return f"{{{pairs}}}"
        case list():
            return f"[{','.join(map(_written, tree))}]"
        case _:
            return str(tree)


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def are_json(lines: Sequence[bytes]) -> list[bytes]:
    """Return those lines that are objects in JSON."""
    found = []
    for line in lines:
        with suppress(ValueError, RecursionError):
            if isinstance(json.loads(line), dict):
                found.append(line)
    return found


_YAML = "tag:yaml.org,2002:"
_TAGS = [f"{_YAML}{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp")]
_TAGS += [f"{_YAML}{kind}" for kind in ("binary", "seq", "map", "set", "omap", "merge", "python/x")]
_TEXTS = [
    *("", "~", "<<", "=", "*", "/", ".", "..", "-1", "0", "1", "yes", "root", "all", "own", "0x"),
    *("9" * 400, "0x" + "f" * 5000, "1:" * 200 + "1", "1:" * 200 + "1.5", ".nan", "-.inf", "1e308"),
    *("2001-99-99", "0b_", "\0", "a\0b", "\x1b[2J", "\u202e", "\ud800", "é" * 500, "[z-a]", "[!"),
    *("sqlite:///\0", "unix:/a\\", "ssl:1:privateKey=/", "tcp:1:x", "[::1]:1", "sha256:", "plain:"),
]


@st.composite
def mutated_yaml(draw: Draw, samples: Sequence[str]) -> bytes:
    """Give a sample with nodes left out, repeated, replaced, retagged, renamed and nested.

    What holds ``SECRET`` stays under its key, so that no mistake may tell it.
    """
    root = yaml.compose(draw(st.sampled_from(samples)), Loader=yaml.SafeLoader)
    assert root is not None
    for _ in range(draw(st.integers(1, 4))):
        _mutate(draw, root)
    return yaml.serialize(root).encode()


def _mutate(draw: Draw, root: yaml.Node) -> None:
    nodes = _nodes(root)
    place = draw(st.sampled_from([node for node in nodes if not isinstance(node, yaml.ScalarNode)]))
    entries = place.value
    others = [node for node in nodes if not _is_secret(node)]
    texts = st.sampled_from(_TEXTS) | st.text(max_size=5)
    fresh = texts.map(lambda text: yaml.ScalarNode(f"{_YAML}str", text, style=None))
    plain = texts.map(lambda text: yaml.ScalarNode(_resolved(text), text))
    node = draw(st.one_of(fresh, plain, st.sampled_from(others)))
    if not entries:
        entries.append((node, node) if isinstance(place, yaml.MappingNode) else node)
        return
    at = draw(st.integers(0, len(entries) - 1))
    is_pair = isinstance(place, yaml.MappingNode)
    key, value = entries[at] if is_pair else (None, entries[at])
    match draw(st.sampled_from(["delete", "repeat", "replace", "retag", "rename", "nest"])):
        case "delete":
            del entries[at]
        case "repeat":
            entries.append(entries[at])
        case "retag":
            value.tag = draw(st.sampled_from(_TAGS))
        case "rename" if is_pair:
            entries[at] = (node, value)
        case "nest":
            for _ in range(draw(st.sampled_from([1, 2, 60]))):
                value = yaml.SequenceNode(f"{_YAML}seq", [value])
            entries[at] = (key, value) if is_pair else value
        case _:
            entries[at] = (key, node) if is_pair else node


def _nodes(root: yaml.Node) -> list[yaml.Node]:
    """Return all nodes, each once; there may be circles."""
    found: list[yaml.Node] = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if any(node is each for each in found):
            continue
        found.append(node)
        for entry in () if isinstance(node, yaml.ScalarNode) else node.value:
            waiting += entry if isinstance(entry, tuple) else [entry]
    return found


def _is_secret(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and SECRET in node.value


def _resolved(text: str) -> str:
    resolve: Any = yaml.SafeLoader("").resolve
    return str(resolve(yaml.ScalarNode, text, (True, False)))
