"""The panel's own database: one connection for each request."""

import sqlite3

import click
from flask import Flask, current_app, g
from flask.cli import with_appcontext
from werkzeug.security import generate_password_hash


def database() -> sqlite3.Connection:
    """Return the connection of this request."""
    if "database" not in g:
        g.database = sqlite3.connect(current_app.config["DATABASE"])
        g.database.row_factory = sqlite3.Row
    connection: sqlite3.Connection = g.database
    return connection


def close(_: BaseException | None = None) -> None:
    """Close it."""
    connection = g.pop("database", None)
    if connection is not None:
        connection.close()


def init_app(app: Flask) -> None:
    """Make the tables, and have connections closed."""
    app.teardown_appcontext(close)
    app.cli.add_command(add_person)
    with app.app_context(), app.open_resource("schema.sql", "r") as schema:
        database().executescript(schema.read())


@click.command("add-person")
@click.argument("name")
@click.password_option()
@with_appcontext
def add_person(name: str, password: str) -> None:
    """Let somebody log in."""
    row = (name, generate_password_hash(password))
    with database() as db:
        db.execute("INSERT OR REPLACE INTO person VALUES (?, ?)", row)
