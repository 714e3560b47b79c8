"""What the configuration says of calls. Read as root where a zygote is started, and for checking.

The zygote's settings come from the file itself, never from the network-facing process. So this
imports neither Twisted nor TLS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harp import settings
from harp.settings import Section
from harpd.options import LEAST, MAX_UMASK, MOST, environment_mistakes, is_directory
from harpd.zygote import Settings
from harpd.zygote_command import KILL_GRACE, zygote_settings


@dataclass(frozen=True)
class CallsConfig:
    """The part of the configuration that is the zygote's.

    :param path: folders with modules that the procedures import.
    :param defaults: for all procedures, by the names of their options.
    :param kill_grace: seconds between TERM and KILL.
    """

    path: list[str]
    defaults: Mapping[str, Any]
    kill_grace: float


def calls_config(root: Section) -> CallsConfig:
    """Read it; mistakes are noted in the section."""
    path = root.section("python").texts("path", default=[]) if "python" in root else []
    defaults = _defaults(root.section("defaults")) if "defaults" in root else {}
    kill_grace = root.seconds("kill_grace", default=KILL_GRACE)
    return CallsConfig([str(root.folder / folder) for folder in path], defaults, kill_grace)


def load_settings(file: Path, procedures: str) -> Settings:
    """Return the settings of a zygote as the configuration file has them now.

    :param procedures: the procedures file.
    :raises ConfigError: with every mistake of this part.
    """
    with settings.read(file, partly=True) as root:
        config = calls_config(root)
    return zygote_settings(procedures, config.path, config.kill_grace, config.defaults)


def _defaults(section: Section) -> dict[str, Any]:
    """Read what holds for procedures that do not say otherwise; who there is, the zygote finds."""
    found: dict[str, Any] = {}
    if "timeout" in section:
        found["timeout"] = section.seconds("timeout", default=1.0)
    if "uid" in section:
        uid = section.names("uid", "the name or number of a user")
        if isinstance(uid, list):
            section.mistake("uid", "must be the name or number of one user")
        found["uid"] = uid
    if "gid" in section:
        found["gid"] = section.names("gid", "the name or number of a group, or a list of them")
    for key, least in LEAST.items():
        if key in section:
            found[key] = section.integer(key, None, least, MOST)
    if "umask" in section:
        found["umask"] = section.octal("umask", MAX_UMASK)
    if "directory" in section:
        found["directory"] = section.text("directory")
        if found["directory"] and not is_directory(found["directory"]):
            section.mistake("directory", "must be an absolute path")
    if "environment" in section:
        found["environment"] = _environment(section.section("environment"))
    return found


def _environment(section: Section) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in section.keys():  # noqa: SIM118 - it is no mapping
        value = section.text(name, empty=True)
        for mistake in environment_mistakes({name: value}):
            section.mistake(name, mistake)
        found[name] = value
    return found
