"""A panel for backups. What is secret comes from the environment."""

import os

from flask import Flask

import harp

from . import backups, database, login


def create_app() -> Flask:
    """Return the application; each process has one."""
    app = Flask(__name__, instance_relative_config=True)
    app.config.from_mapping(
        DATABASE=os.path.join(app.instance_path, "panel.db"),
        SESSION_COOKIE_SAMESITE="Lax",  # other sites' forms come without the session
        SESSION_COOKIE_SECURE=True,  # browsers take localhost for secure
    )
    app.config.from_prefixed_env()  # FLASK_SECRET_KEY, FLASK_DATABASE
    # One client for all threads; it connects when it is asked something, so a fork does no harm.
    app.extensions["harp"] = harp.HarpCaller(
        os.environ.get("HARP_HOST", "localhost"),
        int(os.environ.get("HARP_PORT", "3502")),
        ca_file=os.environ.get("HARP_CA_FILE"),
        token=os.environ.get("HARP_TOKEN"),
        connect_timeout=5,  # somebody waits for the answer
        reply_timeout=10,
    )
    os.makedirs(os.path.dirname(app.config["DATABASE"]), exist_ok=True)
    database.init_app(app)
    app.register_blueprint(login.blueprint)
    app.register_blueprint(backups.blueprint)
    return app
