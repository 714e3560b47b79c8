"""Fragments of configurations, put into a whole one and read as ``--test`` reads it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import yaml

from harp.cli.connection import choose, profile_names
from harp.cli.status import Failure
from harp.settings import ConfigError
from harpcaller import config as harpcaller_config
from harpcaller.demo.deployment import Deployment
from harpcaller.hosts import HostsFile
from harpd import config as harpd_config
from tests.docs.pages import ROOT, Block

_PATH = re.compile(r"/etc/(?:harpd|harpcaller)/([\w./-]+)")
_KEY = re.compile(r"^(\w+):(?P<value>.*)$", re.MULTILINE)


def check(block: Block, deployment: Deployment) -> None:
    """Look at keys of a configuration; the others are those of a deployment that works.

    A file in ``/etc`` is one of the deployment's of the same kind, the user harpd is nobody.

    :raises AssertionError: with every mistake.
    """
    folder = deployment.folder / "page"
    folder.mkdir(exist_ok=True)
    text = _PATH.sub(lambda match: str(_stand_in(match[1], folder, deployment)), block.text)
    text = re.sub("(?m)^user: harpd$", "user: nobody", text)
    file = folder / f"{block.of}.yaml"
    try:
        match block.of:
            case "hosts":
                file.write_text(text)
                HostsFile.read(file)
            case "harpd":
                file.write_text(_merged((deployment.folder / "harpd.yaml").read_text(), text))
                harpd_config.load(file)
            case "harpcaller":
                whole = (deployment.folder / "harpcaller.yaml").read_text()
                if "\nhosts_file:" in f"\n{text}":
                    whole = re.sub("(?m)^host_db.*\n", "", whole)
                file.write_text(_merged(whole, text))
                harpcaller_config.load(file)
            case "harp":
                _profiles(block.text, folder, deployment)
            case _:
                raise AssertionError(f"{block.place}: there is no configuration {block.of}")
    except Failure as error:
        raise AssertionError(f"{block.place}: {error.message}") from error
    except ConfigError as error:
        mistakes = "\n".join(error.mistakes)
        raise AssertionError(f"{block.place}: {mistakes}\n{file.read_text()}") from error


def _profiles(text: str, folder: Path, deployment: Deployment) -> None:
    """Look at the file of the command's profiles; the files that it names are made."""
    file = folder / "harp" / "config.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o600)
    shutil.copy(deployment.ca_file, file.parent / "ca.pem")
    for name in ("pem", "key"):
        shutil.copy(deployment.folder / f"harpd.{name}", file.parent / f"panel.{name}")
    (file.parent / "token").write_text("harp_token\n")
    (file.parent / "token").chmod(0o600)
    environment = {"XDG_CONFIG_HOME": str(folder)}
    warnings: list[str] = []
    for profile in profile_names(environment):
        choose(None, profile, environment, warnings.append).open()
    if warnings:
        raise AssertionError("\n".join(warnings))


def _merged(whole: str, keys: str) -> str:
    """Return a configuration with these keys in it, which keeps the others, in sections too."""
    known = yaml.safe_load(whole)
    given = yaml.safe_load(keys)
    for key, value in known.items():
        if key not in given:
            keys += yaml.safe_dump({key: value})
        elif isinstance(value, dict) and isinstance(given[key], dict):
            rest = {name: item for name, item in value.items() if name not in given[key]}
            if rest and not _chooses_module(given[key]):
                indent = re.search(rf"(?m)^{key}:[^\n]*\n(?:\s*#.*\n)*( +)", keys)
                assert indent is not None
                lines = yaml.safe_dump(rest).splitlines()
                more = "".join(f"{indent[1]}{line}\n" for line in lines)
                keys = re.sub(rf"(?m)^{key}:.*\n", lambda match: match[0] + more, keys, count=1)  # noqa: B023
    return keys


def _chooses_module(section: dict[str, object]) -> bool:
    return "module" in section  # whose keys are its own


def _stand_in(name: str, folder: Path, deployment: Deployment) -> Path:
    """Return a file of the deployment's in the place of one that the page names."""
    file = folder / name.replace("/", "-")
    suffix = file.suffix
    if "key" in name:
        source = deployment.folder / "harpd.key"
    elif suffix in {".pem", ".crt"}:
        source = deployment.folder / ("ca.pem" if "ca" in name else "harpd.pem")
    elif "passw" in name:
        source = deployment.folder / "passwords"
    elif suffix in {".yaml", ".yml"}:
        source = ROOT / "etc" / "hosts.yaml"
    else:
        source = deployment.folder / "list-hosts"
    shutil.copy(source, file)
    return file
