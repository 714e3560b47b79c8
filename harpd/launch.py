"""What the keeper starts: reads the configuration as root and becomes a zygote, or prints files.

It is a process of its own, so that neither the keeper nor a zygote keeps in memory what reads YAML.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

from harp.settings import ConfigError
from harpd.calls_config import load_settings
from harpd.named_files import gather
from harpd.zygote_command import (
    CONTROL_DESCRIPTOR,
    write_settings,
    zygote_command,
    zygote_environment,
)

_MAX_TEXT = 4000  # characters of one mistake, as the zygote tells it


def become_zygote(config: Path, procedures: str) -> None:
    """Replace this process by a zygote, or tell every mistake of its settings as one does."""
    try:
        settings = load_settings(config, procedures)
    except ConfigError as error:
        with socket.socket(fileno=CONTROL_DESCRIPTOR) as control:
            for mistake in error.mistakes:
                control.send(json.dumps({"mistake": mistake[:_MAX_TEXT]}).encode())
            control.send(b'{"ready":false}')
        return
    command = zygote_command(write_settings(settings))
    os.execve(command[0], command, zygote_environment())  # noqa: S606 - no shell


def main() -> None:
    """Run as ``python -P -m harpd.launch zygote CONFIG PROCEDURES`` or ``… files CONFIG``."""
    what, config, *procedures = sys.argv[1:]
    if what == "zygote":
        become_zygote(Path(config), *procedures)
    else:
        sys.stdout.buffer.write(gather(Path(config)))


if __name__ == "__main__":
    main()
