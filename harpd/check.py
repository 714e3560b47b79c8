"""Finds the mistakes of a procedures file before the daemon runs, in a zygote of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any

from harpd.lone_zygote import LoneZygote
from harpd.offers import ProceduresError
from harpd.zygote_command import zygote_settings

TIME_LIMIT = 60.0
"""Seconds in which the file must have been loaded."""

_CHUNK = 65536


def check_procedures(
    file: str, path: list[str], defaults: Mapping[str, Any] | None = None, shows: bool = True
) -> list[str]:
    """Load the procedures file in another process and return its mistakes, one sentence each.

    Blocks until it is loaded.

    :param shows: whether what the file prints goes to standard error if there is no mistake too:
        what is to be the log of a daemon gets it from the daemon's own zygote.
    """
    mistakes: list[str] = []
    with ExitStack() as opened:
        printed = os.memfd_create("harpd-check")
        opened.callback(os.close, printed)
        with closing(LoneZygote(zygote_settings(file, path, defaults=defaults), printed)) as zygote:
            try:
                zygote.load(TIME_LIMIT)
            except ProceduresError as error:
                mistakes = error.mistakes
        if shows or mistakes:
            os.lseek(printed, 0, os.SEEK_SET)
            while data := os.read(printed, _CHUNK):
                os.write(2, data)
    return mistakes
