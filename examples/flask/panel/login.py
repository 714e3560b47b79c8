"""Who is logged in."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from flask import Blueprint, flash, g, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from werkzeug.security import check_password_hash, generate_password_hash

from .database import database

P = ParamSpec("P")
R = TypeVar("R")

NOBODY = generate_password_hash("")
"""For names that there are not, so that the time of an answer does not tell which there are."""

blueprint = Blueprint("login", __name__)


def login_required(
    view: Callable[P, ResponseReturnValue],
) -> Callable[P, ResponseReturnValue]:
    """Send those who are not logged in to the page where they can."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> ResponseReturnValue:
        g.person = session.get("person")
        if g.person is None:
            return redirect(url_for("login.log_in"))
        return view(*args, **kwargs)

    return guarded


@blueprint.route("/login", methods=["GET", "POST"])
def log_in() -> ResponseReturnValue:
    """Log somebody in."""
    if request.method == "POST":
        name = request.form["name"]
        row = database().execute("SELECT * FROM person WHERE name = ?", [name]).fetchone()
        known = NOBODY if row is None else row["password"]
        if check_password_hash(known, request.form["password"]) and row is not None:
            session.clear()
            session["person"] = name
            return redirect(url_for("backups.index"))
        flash("There is nobody of that name and password.")
    return render_template("login.html")
