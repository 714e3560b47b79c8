"""What each of the examples promises, written once for all three."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from harpcaller.demo.ports import free_port
from tests.acceptance.daemons import eventually
from tests.examples.panels import (
    EXAMPLES,
    TOKEN,
    Panel,
    Server,
    deployment,
    dispatcher,
    surroundings,
)

MAX_LINES = 120
"""The longest file that an example may have."""


def numbers(text: str) -> list[int]:
    """Return the numbers of the packets in a text of events."""
    return [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]


class Contract(SynchronousTestCase):
    """An heir names the folder and says how its application is loaded, once for all tests."""

    folder: ClassVar[str]
    files: ClassVar[set[str]]
    load: ClassVar[Callable[[], Panel]]
    prefix = ""
    """What comes before the job id in an address."""

    def setUp(self) -> None:
        """Start the daemons and load the application, unless another test has."""
        around = surroundings(EXAMPLES / self.folder)
        around.__enter__()
        self.addCleanup(around.__exit__, None, None, None)
        self.panel = type(self).load()

    def start(self, database: str, person: str = "ada") -> str:
        """Start a backup that is cancelled behind the test, and return its job's id."""
        answer = self.panel.start(person, database, str(uuid.uuid4()))
        assert answer.job_id is not None, answer.text
        self.addCleanup(dispatcher().job(answer.job_id).cancel)
        return answer.job_id

    def until_running(self, job_id: str) -> Any:
        """Wait until the procedure runs."""
        job = dispatcher().job(job_id)
        eventually(lambda: job.detail()["packets"] > 0, "the backup runs")
        return job

    def test_result(self) -> None:
        """A call is made on behalf of who is logged in, and its result is shown later."""
        job_id = self.start("orders")
        job = dispatcher().job(job_id)
        job.get()
        detail = job.detail()
        self.assertEqual((detail["submitter"], detail["on_behalf_of"]), ("panel", "ada"))
        shown = self.panel.show("ada", job_id)
        self.assertEqual(shown.status, 200)
        self.assertIn("done", shown.text)
        self.assertIn("tables", shown.text)
        self.assertIn(job_id, self.panel.index("ada").text)

    def test_double_click(self) -> None:
        """The same form sent twice makes one job; another database or person makes another."""
        key = str(uuid.uuid4())
        answers = [self.panel.start("ada", "orders", key) for _ in range(2)]
        self.assertIsNotNone(answers[0].job_id)
        self.assertEqual(answers[0].job_id, answers[1].job_id)
        other = self.panel.start("ada", "users", key).job_id
        bobs = self.panel.start("bob", "orders", key).job_id
        self.assertEqual(len({answers[0].job_id, other, bobs}), 3)
        for job_id in (answers[0].job_id, other, bobs):
            assert job_id is not None
            dispatcher().job(job_id).cancel()

    def test_waiting_running_cancelled(self) -> None:
        """The state is that of now, and who cancels ends the backup."""
        first = self.start("archive")
        self.until_running(first)
        second = self.start("orders")
        self.assertIn("running", self.panel.show("ada", first).text)
        self.assertIn("waiting", self.panel.show("ada", second).text)
        self.panel.cancel("ada", first)
        self.assertIn("cancelled", self.panel.show("ada", first).text)
        dispatcher().job(second).get()
        self.assertIn("done", self.panel.show("ada", second).text)

    def test_exception(self) -> None:
        """What the procedure raised is shown, and not as markup."""
        job_id = self.start("<b>nothing</b>")
        dispatcher().job(job_id).result(wait=True)
        shown = self.panel.show("ada", job_id).text
        self.assertIn("LookupError", shown)
        self.assertIn("failed", shown)
        if shown.lstrip().startswith("<"):
            self.assertNotIn("<b>nothing", shown)

    def test_remedy(self) -> None:
        """An error is shown with what to do about it."""
        job_id = str(uuid.uuid4())
        self.panel.record("ada", job_id)
        self.assertIn("it was pruned", self.panel.show("ada", job_id).text)

    def test_no_dispatcher(self) -> None:
        """Where the dispatcher is away that is told, and the same form can be sent again."""
        job_id, key = self.start("orders"), str(uuid.uuid4())
        bring_back = self.panel.use(dispatcher(free_port()))
        try:
            for answer in (
                self.panel.start("ada", "orders", key),
                self.panel.show("ada", job_id),
                self.panel.cancel("ada", job_id),
            ):
                self.assertIn("Check the address", answer.text)
                self.assertLess(answer.status, 503)
        finally:
            bring_back()
        again = self.panel.start("ada", "orders", key).job_id
        assert again is not None
        dispatcher().job(again).get()

    def test_others(self) -> None:
        """A backup is its owner's: for others there is none, and nothing for who is nobody."""
        job_id = self.start("archive")
        for ask in (self.panel.show, self.panel.cancel, self.panel.events):
            self.assertEqual(ask("bob", job_id).status, 404, ask)
            self.assertIn(ask(None, job_id).status, (302, 401), ask)
        self.assertIn(self.panel.start(None, "orders", "key").status, (302, 401))
        self.assertNotIn(job_id, self.panel.index("bob").text)
        self.assertNotEqual(dispatcher().job(job_id).detail()["state"], "ended")

    def test_events(self) -> None:
        """All packets are streamed with their numbers, or those behind a last one, and the end."""
        job_id = self.start("orders")
        told = self.panel.events("ada", job_id).text
        self.assertEqual(numbers(told), [0, 1, 2])
        packets = [json.loads(line[6:]) for line in told.splitlines() if line.startswith("data: ")]
        self.assertEqual(packets[2], {"progress": {"done": 3, "total": 3, "unit": "tables"}})
        self.assertIn("event: end\n", told)
        self.assertEqual(numbers(self.panel.events("ada", job_id, last=1).text), [2])

    def test_nonsense_for_a_last_packet(self) -> None:
        """A number that no packet has is refused, or everything is streamed."""
        job_id = self.start("orders")
        answer = self.panel.events("ada", job_id, last=-5)
        if answer.status == 200:
            self.assertEqual(numbers(answer.text), [0, 1, 2])
        else:
            self.assertLess(answer.status, 500)

    def test_live_from_another_process(self) -> None:
        """A server that did not start the backup streams it while it runs, and tells its end."""
        job_id = self.start("archive")
        server = Server(self.panel)
        self.addCleanup(server.stop)
        path, cookie = f"/{self.prefix}{job_id}/events", self.panel.cookie("ada")
        with server.following(path, cookie) as lines:
            seen = [next(line for line in lines if line.startswith("id: ")) for _ in range(3)]
            self.assertEqual(seen, ["id: 0", "id: 1", "id: 2"])
            self.assertIn("running", self.panel.show("ada", job_id).text)
            with server.following(path, cookie, **{"Last-Event-ID": "0"}) as others:
                self.assertEqual(next(line for line in others if line[:3] == "id:"), "id: 1")
                self.panel.cancel("ada", job_id)
                for each in (lines, others):
                    self.assertIn("event: end", each)
        self.assertNotIn(TOKEN, server.log.read_text())

    def test_files(self) -> None:
        """An example is short, and its files are those that have tests here."""
        found = set()
        for kind in ("*.py", "*.html", "*.sql"):
            for file in (EXAMPLES / self.folder).rglob(kind):
                self.assertLess(len(file.read_text().splitlines()), MAX_LINES, file)
                found.add(file.name)
        self.assertEqual(found, self.files)

    def test_token(self) -> None:
        """The panel's token is in no log of the dispatcher's either."""
        self.panel.start("ada", "orders", str(uuid.uuid4()))
        self.assertNotIn(TOKEN, (deployment().folder / "harpcaller.log").read_text())
