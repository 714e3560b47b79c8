"""The example for Flask, in the hands of Flask's test client."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import harp
from tests.examples import contract
from tests.examples.panels import EXAMPLES, PASSWORD, PEOPLE, Answer, dispatcher


class FlaskPanel:
    """The application, loaded into this process."""

    folder = EXAMPLES / "flask"
    command = ["flask", "--app", "panel", "run", "--port"]

    def __init__(self) -> None:
        from panel import create_app

        self.app = create_app()
        for name in PEOPLE:
            done = self.app.test_cli_runner().invoke(
                args=["add-person", name, "--password", PASSWORD]
            )
            assert done.exit_code == 0, done.output

    def client(self, person: str | None) -> Any:
        """Return a browser where somebody is logged in."""
        client = self.app.test_client()
        if person is not None:
            with client.session_transaction() as session:
                session["person"] = person
        return client

    def start(self, person: str | None, database: str, key: str) -> Answer:
        response = self.client(person).post("/", data={"database": database, "key": key})
        job_id = response.headers.get("Location", "").strip("/") if person else None
        return Answer(response.status_code, response.text, job_id or None)

    def show(self, person: str | None, job_id: str) -> Answer:
        return self._answer(self.client(person).get(f"/{job_id}"))

    def cancel(self, person: str | None, job_id: str) -> Answer:
        return self._answer(self.client(person).post(f"/{job_id}/cancel"))

    def events(self, person: str | None, job_id: str, last: int | None = None) -> Answer:
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        return self._answer(self.client(person).get(f"/{job_id}/events", headers=headers))

    def index(self, person: str | None) -> Answer:
        return self._answer(self.client(person).get("/"))

    def record(self, person: str, job_id: str) -> None:
        from panel.database import database

        with self.app.app_context(), database() as db:
            row = (job_id, person, "orders")
            db.execute("INSERT INTO backup (job_id, owner, database) VALUES (?, ?, ?)", row)

    def cookie(self, person: str) -> str:
        return f"session={self.client(person).get_cookie('session').value}"

    def use(self, rpc: harp.HarpCaller) -> Callable[[], None]:
        first = self.app.extensions["harp"]
        self.app.extensions["harp"] = rpc

        def bring_back() -> None:
            self.app.extensions["harp"] = first

        return bring_back

    def _answer(self, response: Any) -> Answer:
        return Answer(response.status_code, response.text)


class FlaskTests(contract.Contract):
    """Its promises."""

    folder = "flask"
    files = {
        *("__init__.py", "backups.py", "database.py", "jobs.py", "login.py", "schema.sql"),
        *("base.html", "detail.html", "failed.html", "index.html", "login.html"),
    }
    load = cache(FlaskPanel)
    panel: Any

    def test_form(self) -> None:
        """A person logs in, gets a form, and sends it."""
        client = self.panel.client(None)
        wrong = client.post("/login", data={"name": "ada", "password": "wrong"})
        self.assertIn("There is nobody", wrong.text)
        response = client.post("/login", data={"name": "ada", "password": PASSWORD})
        cookie = response.headers["Set-Cookie"]
        for attribute in ("SameSite=Lax", "HttpOnly", "Secure"):
            self.assertIn(attribute, cookie)
        (key,) = [part[:36] for part in client.get("/").text.split('name="key" value="')[1:]]
        response = client.post("/", data={"database": "orders", "key": key})
        job_id = response.headers["Location"].strip("/")
        self.assertEqual(client.get(f"/{job_id}/cancel").status_code, 405)
        self.assertEqual(dispatcher().job(job_id).get()["tables"], 3)

    def test_unknown_name(self) -> None:
        """A name that there is not costs the work of one that there is, and lets nobody in."""
        from panel import login

        checked = []
        check = login.check_password_hash

        def noted(known: str, password: str) -> bool:
            checked.append(known.partition("$")[0])
            is_right: bool = check(known, password)
            return is_right

        self.patch(login, "check_password_hash", noted)
        for name, password in (("ada", "wrong"), ("eve", "wrong"), ("eve", "")):
            client = self.panel.client(None)
            answer = client.post("/login", data={"name": name, "password": password})
            self.assertIn("There is nobody", answer.text)
            self.assertEqual(client.get("/").status_code, 302)
        self.assertEqual(checked, [checked[0]] * 3)

    def test_wrong_form(self) -> None:
        """A form that no browser sends starts nothing."""
        for name, key in (("x" * 65, "key"), ("", "key"), ("orders", "k" * 65)):
            self.assertEqual(self.panel.start("ada", name, key).status, 400)

    def test_pulse(self) -> None:
        """While nothing comes the server writes, and so finds out who has left."""
        from panel import jobs

        self.patch(jobs, "PULSE", 0.01)
        self.until_running(self.start("archive"))
        told = jobs.events(dispatcher().job(self.start("orders")), 0)
        self.assertEqual([next(told) for _ in range(3)][1:], [": nothing new\n\n"] * 2)
        told.close()
