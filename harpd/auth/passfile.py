"""Users in a password file: lines ``USER:HASH``, empty ones and comments (``#``) between them."""

from __future__ import annotations

from harp.settings import Section
from harpd.auth import schemes
from harpd.auth.passwords import PasswordTable


def load(section: Section) -> PasswordTable:
    """Read the file that ``file`` names; mistakes are noted in the section with their line."""
    name = section.text("file")
    file = section.folder / name
    hashes: dict[str, schemes.StoredHash] = {}
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
        else:
            try:
                hashes[user] = schemes.read(stored)
            except ValueError as error:
                section.mistake("file", f"{where}: {error}")
    return PasswordTable(hashes)
