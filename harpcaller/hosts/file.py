"""The file of hosts that an operator writes: YAML or lines of JSON, all of it right or none used.

No mistake repeats a value, nor a key that may have been meant as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from harp.logs import shown
from harp.settings import ConfigError, Section
from harp.wire.harpd import DEFAULT_PORT
from harpcaller import trust
from harpcaller.hosts.entries import BAD_SERVER_NAME, Host, parse_hosts, read_fingerprints

YAML_SUFFIXES = frozenset({".yaml", ".yml"})
"""What the name of a YAML file ends in; any other file has a line of JSON for each host."""

MAX_DEPTH = 10
"""How deep lists and mappings may stand in each other; four are needed."""

MAX_MISTAKES = 100
"""Of how many mistakes is told; what made the file may have made the same one everywhere."""

_KEYS = ("address", "port", "credentials", "tags", "server_name", "fingerprint")
_LOGIN_KEYS = ("user", "password")

# libyaml takes a sixth of the time: about a second for 10,000 hosts.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_hosts_file(path: Path) -> dict[str, Host]:
    """Read the hosts.

    YAML has a mapping of names to entries, or a list of entries with ``hostname``.

    :return: the hosts by name, in the order of names; at least one.
    :raises harp.settings.ConfigError: with every mistake by its line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: can't be read: {error.strerror}"]) from error
    if path.suffix.lower() in YAML_SUFFIXES:
        hosts, mistakes = _parse_yaml(path, data)
    else:
        hosts, complaints = parse_hosts(data, strict=True)
        mistakes = [f"{path}: {complaint}" for complaint in complaints]
    if not hosts and not mistakes:
        mistakes = [f"{path}: has no host"]
    if len(mistakes) > MAX_MISTAKES:
        more = len(mistakes) - MAX_MISTAKES
        mistakes[MAX_MISTAKES:] = [f"{path}: there are {more} more mistakes"]
    if mistakes:
        raise ConfigError(mistakes)
    return dict(sorted(hosts.items()))


def _parse_yaml(path: Path, data: bytes) -> tuple[dict[str, Host], list[str]]:
    try:
        text = data.decode()
        if _is_deep(text):
            return {}, [f"{path}: is nested too deep"]
        node = yaml.compose(text, Loader=_Loader)
    except UnicodeDecodeError as error:
        return {}, [f"{path}: is not UTF-8 at byte {error.start}"]
    except yaml.YAMLError as error:
        return {}, [f"{path}: {_not_yaml(error)}"]
    if node is None:
        return {}, []
    if not isinstance(node, yaml.MappingNode | yaml.SequenceNode):
        return {}, [f"{path}: must be a mapping of names to hosts or a list of hosts"]
    hosts: dict[str, Host] = {}
    mistakes: list[str] = []
    for host, start in _entries(path, node, mistakes):
        if host.name and host.name in hosts:
            mistakes.append(f"{path}: {shown(host.name)}, {_place(start)}: stands twice")
        hosts[host.name] = host
    return hosts, mistakes


def _is_deep(text: str) -> bool:
    # libyaml's composer is recursive, and its end would be that of the process.
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            return True
    return False


def _entries(
    path: Path, node: yaml.CollectionNode, mistakes: list[str]
) -> Iterator[tuple[Host, yaml.Node]]:
    """Give each host with the node where it starts."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.value:
                mistakes.append(f"{path}: {_place(key)}: must be the name of a host")
                continue
            keys = _section(path, key.value, value, _KEYS, mistakes)
            if keys is not None:
                yield _host(keys, key.value), key
    else:
        for number, value in enumerate(node.value, 1):
            keys = _section(path, f"host {number}", value, ("hostname", *_KEYS), mistakes)
            if keys is not None:
                yield _host(keys, keys.text("hostname")), value


def _host(keys: Section, name: str) -> Host:
    login = keys.section("credentials")
    server_name = keys.optional_text("server_name")
    if server_name and not trust.is_server_name(server_name):
        keys.mistake("server_name", BAD_SERVER_NAME)
    fingerprints: tuple[str, ...] = ()
    if "fingerprint" in keys:
        try:
            fingerprints = read_fingerprints(keys.texts("fingerprint", []))
        except ValueError as error:  # also of what was no text at all
            keys.mistake("fingerprint", str(error))
    return Host(
        name,
        keys.text("address"),
        keys.port("port", DEFAULT_PORT),
        login.text("user"),
        login.text("password"),
        tuple(keys.texts("tags", [])),
        server_name,
        fingerprints,
    )


def _section(
    path: Path, name: str, node: yaml.Node, known: tuple[str, ...], mistakes: list[str]
) -> Section | None:
    if isinstance(node, yaml.MappingNode):
        return Section(
            path, shown(name), _of_known(path, shown(name), node, known, mistakes), mistakes
        )
    mistakes.append(f"{path}: {shown(name)}, {_place(node)}: must have the keys of a host")
    return None


def _of_known(
    path: Path, name: str, node: yaml.MappingNode, known: tuple[str, ...], mistakes: list[str]
) -> yaml.MappingNode:
    """Leave out and note unknown keys, unnamed: in ``{password:secret}`` there is but one key."""
    pairs = []
    for key, value in node.value:
        if key.value not in known:
            what = f"is not a key that is known here, as {', '.join(known)}"
            mistakes.append(f"{path}: {name}, {_place(key)}: {what}")
            continue
        if key.value == "credentials" and isinstance(value, yaml.MappingNode):
            value = _of_known(path, f"{name}.credentials", value, _LOGIN_KEYS, mistakes)  # noqa: PLW2901
        pairs.append((key, value))
    return yaml.MappingNode(node.tag, pairs, node.start_mark, node.end_mark)


def _not_yaml(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "is not YAML: it has a character that may not stand there"
    # The problems of the loader that is not libyaml's may quote a password.
    what = f": {error.problem}" if _Loader is not yaml.SafeLoader else ""
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: is not YAML{what}"


def _place(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"
