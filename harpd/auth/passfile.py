"""Users in a password file: lines ``USER:HASH``, empty ones and comments (``#``) between them."""

from __future__ import annotations

from harp.settings import Section
from harpd.auth.passwords import SCHEMES, PasswordTable, is_known_hash


def load(section: Section) -> PasswordTable:
    """Read the file that ``file`` names; mistakes are noted in the section with their line."""
    name = section.text("file")
    file = section.folder / name
    hashes: dict[str, str] = {}
    try:
        lines = section.contents(file).decode().splitlines() if name else []
    except (OSError, UnicodeDecodeError) as error:
        section.mistake("file", f"{file} can't be read: {getattr(error, 'strerror', error)}")
        return PasswordTable(hashes)
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        # What follows a second colon, as in shadow(5), is not ours.
        user, colon, rest = line.strip().partition(":")
        stored = rest.partition(":")[0]
        where = f"{file}, line {number}"
        if not (user and colon):
            section.mistake("file", f"{where}: is not USER:HASH")
        elif user in hashes:
            section.mistake("file", f"{where}: user {user} stands twice")
        elif not is_known_hash(stored):
            section.mistake("file", f"{where}: no hash that can be verified; known are {SCHEMES}")
        else:
            hashes[user] = stored
    return PasswordTable(hashes)
