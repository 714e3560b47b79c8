"""Makes the reference of a configuration from its commented sample in ``etc/``.

A sample has a comment above each key. A key behind ``#`` is one that is not set if nothing is said;
what stands there is an example. All others have their default, or what must be said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_KEY = re.compile(r"^(?P<indent> *)(?P<hash>#?)(?P<name>[a-z_]+):(?P<value> .*)?$")
_EXAMPLE = re.compile(r"^ *#(?: {2,}|(?=\S))")
_COMMENT = re.compile(r"^ *#(?: |$)")


@dataclass
class Key:
    """A key with what the sample says of it.

    :param name: with the key above it, as in ``network.port``.
    :param value: what stands behind it, over several lines if that is more than a word.
    :param is_set: whether it stands there without ``#``.
    :param text: the comment above it, as Markdown.
    """

    name: str
    value: str
    is_set: bool
    text: str
    more: list[str] = field(default_factory=list)


def keys(sample: Path) -> Iterator[Key]:
    """Yield the keys of a sample, in their order."""
    comment: list[str] = []
    section, last = "", None
    for line in _body(sample):
        key = _KEY.match(line)
        if not line.strip():
            if last is not None:
                yield last
            comment, last = [*comment, ""] if comment and last is None else [], None
        elif last is not None and last.value == "" and _is_below(line, last, key):
            last.more.append(line)
        elif _COMMENT.match(line) and not (key and key["hash"]):
            comment.append(line.strip()[2:])
        elif key is not None:
            if last is not None:
                yield last
            if not key["indent"]:
                section = ""
            name = f"{section}.{key['name']}" if section else key["name"]
            value = (key["value"] or "").strip()
            last = Key(name, value, not key["hash"], "\n".join(comment).strip("\n"))
            comment = []
            if not key["indent"] and not value and not _is_example(sample, line):
                section = key["name"]
        elif last is not None:
            last.more.append(line)
    if last is not None:
        yield last


def markdown(sample: Path) -> str:
    """Return the keys as a list of definitions; those that share a comment share one."""
    groups: list[list[Key]] = []
    for key in keys(sample):
        if groups and not key.text and not key.more and not groups[-1][-1].more and key.value:
            groups[-1].append(key)
        else:
            groups.append([key])
    return "\n".join(map(_definition, groups))


def _body(sample: Path) -> list[str]:
    """Return the lines below the head of the file."""
    lines = sample.read_text("utf-8").splitlines()
    return lines[lines.index("") + 1 :]


def _is_example(sample: Path, line: str) -> bool:
    """Tell whether what is below a key is its value, not keys that are told of one by one."""
    lines = sample.read_text("utf-8").splitlines()
    below = lines[lines.index(line) + 1 : lines.index(line) + 3]
    return not any(re.match(r" +(# |#?[a-z_]+:)", each) for each in below)


def _is_below(line: str, last: Key, key: re.Match[str] | None) -> bool:
    if not last.is_set:
        return bool(_EXAMPLE.match(line)) and (key is None or bool(line.lstrip().startswith("#  ")))
    return key is None and not _COMMENT.match(line)


def _definition(group: list[Key]) -> str:
    title = ", ".join(map(_title, group))
    key = group[0]
    paragraphs = [_prose(key.text)] if key.text else []
    if key.more:
        paragraphs.append(f"```yaml\n{_lines(key)}\n```")
    body = "\n\n".join(paragraphs or ["A section with these keys:"]).replace("\n", "\n  ")
    return f"{title}\n: {body}\n"


def _title(key: Key) -> str:
    value = f": {key.value}" if key.value else ""
    return f"`{key.name}{value}`" + ("" if key.is_set else " (not set)")


def _lines(key: Key) -> str:
    """Return the key and what is below it, as it stands in a file."""
    below = [line if key.is_set else re.sub(r"^( *)#", r"\1", line) for line in key.more]
    margin = min(len(line) - len(line.lstrip()) for line in below) - 2
    return "\n".join([f"{key.name.rpartition('.')[2]}:", *(line[margin:] for line in below)])


def _prose(text: str) -> str:
    """Return a comment as Markdown: what is indented in it is code, names of keys are too."""
    paragraphs: list[str] = []
    code: list[str] = []
    for line in text.split("\n"):
        if line.startswith("  "):
            code.append(line.strip())
            continue
        if code:
            paragraphs += ["", "```text", *code, "```", ""]
            code = []
        paragraphs.append(re.sub(r"([*<>\[\]])", r"\\\1", line))
    if code:
        paragraphs += ["", "```text", *code, "```", ""]
    return "\n".join(paragraphs).strip("\n")
