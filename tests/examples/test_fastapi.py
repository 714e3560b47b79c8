"""The example for FastAPI, in the hands of its test client."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import anyio
from argon2 import PasswordHasher

import harp
from tests.acceptance.daemons import PATIENCE
from tests.examples import contract
from tests.examples.panels import EXAMPLES, PASSWORD, PEOPLE, Answer, dispatcher


class FastApiPanel:
    """The application, loaded into this process."""

    folder = EXAMPLES / "fastapi"
    command = ["uvicorn", "app.main:app", "--port"]

    def __init__(self) -> None:
        from app import add_person
        from app.main import app

        self.app = app
        for name in PEOPLE:
            add_person.main(name, PASSWORD)
        app.state.rpc = dispatcher()
        self._cookies = {name: self._log_in(name) for name in PEOPLE}

    def client(self, person: str | None) -> Any:
        """Return a browser where somebody is logged in."""
        from fastapi.testclient import TestClient

        cookies = {} if person is None else {"session": self._cookies[person]}
        return TestClient(self.app, base_url="https://localhost", cookies=cookies)

    def _log_in(self, name: str) -> str:
        client = self.client(None)
        response = client.post("/login", json={"name": name, "password": PASSWORD})
        assert response.status_code == 204, response.text
        return str(client.cookies["session"])

    def start(self, person: str | None, database: str, key: str) -> Answer:
        response = self.client(person).post(
            "/backups", json={"database": database}, headers={"Idempotency-Key": key}
        )
        job_id = response.json()["job_id"] if response.status_code == 202 else None
        return Answer(response.status_code, response.text, job_id)

    def show(self, person: str | None, job_id: str) -> Answer:
        return self._answer(self.client(person).get(f"/backups/{job_id}"))

    def cancel(self, person: str | None, job_id: str) -> Answer:
        return self._answer(self.client(person).post(f"/backups/{job_id}/cancel"))

    def events(self, person: str | None, job_id: str, last: int | None = None) -> Answer:
        headers = {} if last is None else {"Last-Event-ID": str(last)}
        with self.client(person) as client:  # with its lifespan
            return self._answer(client.get(f"/backups/{job_id}/events", headers=headers))

    def index(self, person: str | None) -> Answer:
        return self._answer(self.client(person).get("/backups"))

    def record(self, person: str, job_id: str) -> None:
        from app import records

        records.add(job_id, person, "orders")

    def cookie(self, person: str) -> str:
        return f"session={self._cookies[person]}"

    def use(self, rpc: harp.HarpCaller) -> Callable[[], None]:
        first = self.app.state.rpc
        self.app.state.rpc = rpc

        def bring_back() -> None:
            self.app.state.rpc = first

        return bring_back

    def _answer(self, response: Any) -> Answer:
        return Answer(response.status_code, response.text)


class FastApiTests(contract.Contract):
    """Its promises."""

    folder = "fastapi"
    files = {
        *("__init__.py", "page.html", "add_person.py", "backups.py", "login.py"),
        *("main.py", "records.py", "schemas.py"),
    }
    load = cache(FastApiPanel)
    prefix = "backups/"
    panel: Any

    def test_session(self) -> None:
        """A wrong password makes no session, and the cookie is for this site's own pages."""
        client = self.panel.client(None)
        for name, password in (("ada", "wrong"), ("eve", PASSWORD)):
            wrong = client.post("/login", json={"name": name, "password": password})
            self.assertEqual(wrong.status_code, 403)
        response = client.post("/login", json={"name": "ada", "password": PASSWORD})
        cookie = response.headers["Set-Cookie"].lower()
        for attribute in ("samesite=lax", "httponly", "secure"):
            self.assertIn(attribute, cookie)
        self.assertIn("EventSource", client.get("/").text)

    def test_unknown_name(self) -> None:
        """A name that there is not costs the work of one that there is, and lets nobody in."""
        checked = []
        verify = PasswordHasher.verify

        def noted(hasher: PasswordHasher, known: str, password: str) -> bool:
            checked.append(known.rpartition("$")[0].rpartition("$")[0])
            return verify(hasher, known, password)

        self.patch(PasswordHasher, "verify", noted)
        for name, password in (("ada", "wrong"), ("eve", "wrong"), ("eve", "")):
            client = self.panel.client(None)
            wrong = client.post("/login", json={"name": name, "password": password})
            self.assertEqual((wrong.status_code, client.get("/backups").status_code), (403, 401))
        self.assertEqual(checked, [checked[0]] * 3)
        self.assertIn("argon2", checked[0])

    def test_wrong_order(self) -> None:
        """What is not whole starts nothing."""
        for name, key in (("x" * 65, "key"), ("", "key"), ("orders", "k" * 65), ("orders", "")):
            self.assertEqual(self.panel.start("ada", name, key).status, 422)

    def test_follower_who_leaves(self) -> None:
        """The thread of a follower who has left is free after the next pulse, silence or not."""
        from app import backups

        self.patch(backups, "PULSE", 0.01)
        first = self.until_running(self.start("archive"))
        waiting = dispatcher().job(self.start("orders"))
        rescue = threading.Timer(PATIENCE, first.cancel)  # what else would end the thread
        rescue.start()
        reads = threading.Event()
        read = harp.StreamIterator.__next__

        def noticed(packets: harp.StreamIterator) -> Any:
            reads.set()
            return read(packets)

        self.patch(harp.StreamIterator, "__next__", noticed)
        self.addCleanup(rescue.cancel)

        async def leave() -> None:
            followers = anyio.CapacityLimiter(1)
            request: Any = SimpleNamespace(
                app=SimpleNamespace(state=SimpleNamespace(followers=followers))
            )
            events = backups.follow(waiting, request)
            self.assertEqual((await anext(events)).retry, 1000)
            async with anyio.create_task_group() as group:
                group.start_soon(anext, events)
                while not reads.is_set():
                    await anyio.sleep(0)
                group.cancel_scope.cancel()
            self.assertEqual(followers.borrowed_tokens, 0)

        anyio.run(leave)
        self.assertEqual(waiting.detail()["state"], "waiting")

    def test_idempotency_key_is_asked_for(self) -> None:
        """Nothing is started without one."""
        response = self.panel.client("ada").post("/backups", json={"database": "orders"})
        self.assertEqual(response.status_code, 422)
        key = {"Idempotency-Key": str(uuid.uuid4())}
        response = self.panel.client("ada").post("/backups", json={}, headers=key)
        self.assertEqual(response.status_code, 422)
