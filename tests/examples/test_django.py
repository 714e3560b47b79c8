"""The example for Django, in the hands of Django's test client."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import harp
from tests.examples import contract
from tests.examples.panels import EXAMPLES, PASSWORD, PEOPLE, Answer, dispatcher


class DjangoPanel:
    """The project, loaded into this process."""

    folder = EXAMPLES / "django"
    command = ["manage", "runserver", "--noreload"]

    def __init__(self) -> None:
        import django
        from django.contrib.auth import get_user_model
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        users = get_user_model().objects
        self._users = {
            name: users.filter(username=name).first() or users.create_user(name, password=PASSWORD)
            for name in PEOPLE
        }

    def client(self, person: str | None, **options: Any) -> Any:
        """Return a browser where somebody is logged in."""
        from django.test import Client

        client = Client(SERVER_NAME="localhost", **options)
        if person is not None:
            client.force_login(self._users[person])
        return client

    def start(self, person: str | None, database: str, key: str) -> Answer:
        response = self.client(person).post("/", {"database": database, "key": key})
        job_id = response.headers.get("Location", "").strip("/") if person else None
        return Answer(response.status_code, response.content.decode(), job_id or None)

    def show(self, person: str | None, job_id: str) -> Answer:
        return self._answer(self.client(person).get(f"/{job_id}/"))

    def cancel(self, person: str | None, job_id: str) -> Answer:
        client = self.client(person)
        response = client.post(f"/{job_id}/cancel")
        if response.headers.get("Location") == f"/{job_id}/":
            response = client.get(f"/{job_id}/")
        return self._answer(response)

    def events(self, person: str | None, job_id: str, last: int | None = None) -> Answer:
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        response = self.client(person).get(f"/{job_id}/events", headers=headers)
        text = response.getvalue().decode()  # closes it, too
        return Answer(response.status_code, text)

    def index(self, person: str | None) -> Answer:
        return self._answer(self.client(person).get("/"))

    def record(self, person: str, job_id: str) -> None:
        from backups.models import Backup

        Backup.objects.create(job_id=job_id, owner=self._users[person], database="orders")

    def cookie(self, person: str) -> str:
        return f"sessionid={self.client(person).cookies['sessionid'].value}"

    def use(self, rpc: harp.HarpCaller) -> Callable[[], None]:
        from backups import models

        first = models.dispatcher
        models.dispatcher = lambda: rpc

        def bring_back() -> None:
            models.dispatcher = first

        return bring_back

    def _answer(self, response: Any) -> Answer:
        return Answer(response.status_code, response.content.decode())


class DjangoTests(contract.Contract):
    """Its promises."""

    folder = "django"
    files = {
        *("__init__.py", "0001_initial.py", "manage.py", "settings.py", "urls.py", "wsgi.py"),
        *("dispatcher.py", "events.py", "forms.py", "models.py", "views.py"),
        *("base.html", "detail.html", "index.html", "login.html"),
    }
    load = cache(DjangoPanel)
    panel: Any

    def tearDown(self) -> None:
        """Close the database."""
        from django.db import connections

        connections.close_all()

    def test_form(self) -> None:
        """A person logs in, gets a form, and sends it; without its token nothing is taken."""
        client = self.panel.client(None, enforce_csrf_checks=True)
        client.get("/accounts/login/")
        who = {"username": "ada", "password": PASSWORD}
        self.assertEqual(client.post("/accounts/login/", who).status_code, 403)
        token = {"csrfmiddlewaretoken": client.cookies["csrftoken"].value}
        client.post("/accounts/login/", {**who, **token})
        form = client.get("/").content.decode()
        (key,) = [part[:36] for part in form.split('name="key" value="')[1:]]
        order = {"database": "orders", "key": key}
        self.assertEqual(client.post("/", order).status_code, 403)
        token = {"csrfmiddlewaretoken": client.cookies["csrftoken"].value}
        response = client.post("/", {**order, **token})
        self.assertEqual(response.status_code, 302)
        job_id = response.headers["Location"].strip("/")
        self.assertEqual(client.post(f"/{job_id}/cancel").status_code, 403)
        self.assertEqual(client.get(f"/{job_id}/cancel").status_code, 405)
        self.assertEqual(dispatcher().job(job_id).get()["tables"], 3)

    def test_wrong_form(self) -> None:
        """A form that is not whole is shown again, and starts nothing."""
        answer = self.panel.start("ada", "x" * 65, "no key")
        self.assertEqual(answer.status, 200)
        self.assertIn("Ensure this value has at most 64", answer.text)

    def test_pulse(self) -> None:
        """While nothing comes the server writes, and so finds out who has left."""
        from backups import events

        self.patch(events, "PULSE", 0.01)
        self.until_running(self.start("archive"))
        told = events.events(dispatcher().job(self.start("orders")), 0)
        self.assertEqual([next(told) for _ in range(3)][1:], [": nothing new\n\n"] * 2)
        told.close()
