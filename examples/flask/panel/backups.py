"""Backups that people start, watch and cancel; they see and touch their own ones only."""

import sqlite3
from uuid import uuid4

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    g,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue

import harp

from .database import close, database
from .jobs import events, outcome
from .login import login_required

HOST = "web01.example.net"
MAX_NAME = 64

blueprint = Blueprint("backups", __name__)


def dispatcher() -> harp.HarpCaller:
    """Return the client of this process."""
    rpc: harp.HarpCaller = current_app.extensions["harp"]
    return rpc


def own_backup(job_id: str) -> tuple[sqlite3.Row, harp.RemoteCall]:
    """Return the record and the job of the person's own backup."""
    query = "SELECT * FROM backup WHERE job_id = ? AND owner = ?"
    row = database().execute(query, [job_id, g.person]).fetchone()
    if row is None:
        abort(404)
    return row, dispatcher().job(job_id, on_behalf_of=g.person)


@blueprint.get("/")
@login_required
def index() -> ResponseReturnValue:
    """List the person's backups."""
    query = "SELECT * FROM backup WHERE owner = ? ORDER BY submitted DESC"
    rows = database().execute(query, [g.person]).fetchall()
    return render_template("index.html", backups=rows, key=uuid4())


@blueprint.post("/")
@login_required
def start() -> ResponseReturnValue:
    """Submit the call and record its job; the same key twice makes one job and one record."""
    name, key = request.form["database"], request.form["key"]
    if not 1 <= len(name) <= MAX_NAME or len(key) > MAX_NAME:
        abort(400)
    host = dispatcher().host(
        HOST,
        queue={"backup": HOST},  # one after the other
        on_behalf_of=g.person,
        # Who goes back and chooses another database wants another backup.
        idempotency_key=f"{key} {name}",
    )
    job = host.back_up(name)
    with database() as db:
        row = (job.id(), g.person, name)
        db.execute("INSERT OR IGNORE INTO backup (job_id, owner, database) VALUES (?, ?, ?)", row)
    return redirect(url_for("backups.detail", job_id=job.id()))


@blueprint.get("/<job_id>")
@login_required
def detail(job_id: str) -> ResponseReturnValue:
    """Show what is known of a backup now."""
    row, job = own_backup(job_id)
    return render_template("detail.html", backup=row, **outcome(job))


@blueprint.get("/<job_id>/events")
@login_required
def follow(job_id: str) -> ResponseReturnValue:
    """Stream a backup's progress; it takes a thread of the server for as long as it lasts."""
    _, job = own_backup(job_id)
    close()  # the database, which the follower would keep to his end
    since = max(0, request.headers.get("Last-Event-ID", default=-1, type=int) + 1)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return Response(events(job, since), mimetype="text/event-stream", headers=headers)


@blueprint.post("/<job_id>/cancel")
@login_required
def cancel(job_id: str) -> ResponseReturnValue:
    """Cancel a backup."""
    own_backup(job_id)[1].cancel()
    return redirect(url_for("backups.detail", job_id=job_id))


@blueprint.errorhandler(harp.HarpException)
def failed(error: harp.HarpException) -> ResponseReturnValue:
    """Tell what the dispatcher could not be asked; who sends the form again makes no second job."""
    return render_template("failed.html", error=error), 502
