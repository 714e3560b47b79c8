"""Lets somebody log in: ``python -m app.add_person NAME``."""

import sys
from getpass import getpass

from argon2 import PasswordHasher

from . import records


def main(name: str, password: str) -> None:
    """Record the person, with the password's hash."""
    records.make_tables()
    records.add_person(name, PasswordHasher().hash(password))


if __name__ == "__main__":
    main(sys.argv[1], getpass())
