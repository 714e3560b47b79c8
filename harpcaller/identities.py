"""Who asks; what that person or program may do is decided in ``harpcaller.permissions``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """Who asks.

    :param name: the user's name, None for nobody in particular.
    :param is_trusted: whether the user may say on whose behalf it asks.
    :param on_behalf_of: the person for whom it asks.
    :param peer: the address, for logs.
    """

    name: str | None
    groups: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    is_trusted: bool = False
    on_behalf_of: str | None = None
    peer: str = ""
