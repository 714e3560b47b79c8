"""What an operator does to daemons that are at work: stop, start, reload, and limit them."""

from __future__ import annotations

import json
import signal
import threading
import uuid
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import harp
from harpcaller.demo.deployment import Daemon
from tests.acceptance.daemons import (
    HOST,
    PATIENCE,
    connect_harpd,
    deploy,
    eventually,
    is_alive,
)

KILL_GRACE = 0.5
SHUTDOWN_GRACE = 60
"""Seconds; longer than any test waits, so that nothing here ends because they are over."""


class OperationTestCase(SynchronousTestCase):
    """Daemons with limits of their own."""

    def start(self, **limits: Any) -> None:
        """Start them, and stop them when the test ends."""
        self.deployment = deploy(
            harpd={"kill_grace": KILL_GRACE, "shutdown_grace": SHUTDOWN_GRACE},
            shutdown_grace=SHUTDOWN_GRACE,
            **limits,
        )
        self.folder = self.deployment.folder
        self.addCleanup(self.deployment.stop)
        self.deployment.__enter__()
        self.rpc = harp.HarpCaller("127.0.0.1", self.deployment.port)
        self.host = self.rpc.host(HOST)

    def held(self, host: harp.RemoteServer | None = None) -> tuple[harp.RemoteCall, Path]:
        """Return a job that has begun, and the file that lets it end."""
        release = self.folder / f"release-{uuid.uuid4()}"
        job = (host or self.host).hold(str(release))
        with job.follow(since=0) as packets:
            next(packets)
        return job, release


def tell(daemon: Daemon, number: signal.Signals) -> int:
    """Send a signal; return how long the log is that was there before."""
    assert daemon.process is not None
    length = daemon.log.stat().st_size
    daemon.process.send_signal(number)
    return length


def ended(daemon: Daemon) -> None:
    """Return when a daemon that was told to has ended."""
    assert daemon.process is not None
    daemon.process.wait(PATIENCE)


def failure(job: harp.RemoteCall) -> str:
    """Return the type of the error with which a job ends."""
    outcome = job.result(wait=True)
    assert isinstance(outcome, harp.RemoteError), outcome
    return outcome.type


class Calls:
    """Calls without a pause while a ``with`` block lasts.

    :ivar faults: what came of calls that did not end as they should.
    """

    def __init__(self, host: harp.RemoteServer) -> None:
        self.faults: list[object] = []
        self.count = 0
        self._host = host
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Calls:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                outcome = self._host.add(self.count).result(wait=True)
            except harp.HarpException as error:
                outcome = error
            self.count += 1
            if outcome != self.count:
                self.faults.append(outcome)


class RestartTests(OperationTestCase):
    """SIGTERM: what runs may end, what is new is refused, what waits goes on at the next start."""

    def is_refused(self, call: Any) -> bool:
        try:
            call()
        except harp.RemoteError as error:
            self.assertEqual((error.type, error.origin), ("shutdown", harp.Origin.DISPATCHER))
            return True
        return False

    def test_dispatcher(self) -> None:
        """A running job ends as ever; waiting ones run after the start, in their order."""
        self.start()
        diary = self.folder / "diary"
        queued = self.rpc.host(HOST, queue={"of": "this test"})
        running, release = self.held(queued)
        waiting = [queued.note(str(diary), str(number)) for number in range(10)]
        tell(self.deployment.harpcaller, signal.SIGTERM)
        eventually(lambda: self.is_refused(lambda: self.host.add(1)), "new calls are refused")
        self.assertIs(running.result(), harp.CALL_NOT_FINISHED)
        release.touch()
        ended(self.deployment.harpcaller)
        self.assertFalse(diary.exists())
        self.deployment.harpcaller.start()
        self.assertEqual(running.result(), "held")
        self.assertEqual([job.get() for job in waiting], [None] * 10)
        self.assertEqual(diary.read_text().split(), [str(number) for number in range(10)])

    def test_harpd(self) -> None:
        """A running call ends as ever, a new one is refused and did not run."""
        self.start()
        running, release = self.held()
        tell(self.deployment.harpd, signal.SIGTERM)
        eventually(lambda: isinstance(self.host.add(1).result(wait=True), Exception), "one fails")
        error = self.host.add(1).result(wait=True)
        assert isinstance(error, harp.RemoteError)
        self.assertEqual((error.type, error.origin), ("shutdown", harp.Origin.HARPD))
        self.assertIs(running.result(), harp.CALL_NOT_FINISHED)
        release.touch()
        self.assertEqual(running.get(), "held")
        ended(self.deployment.harpd)
        self.deployment.harpd.start()
        self.assertEqual(self.host.add(1).get(), 2)


class ReloadTests(OperationTestCase):
    """SIGHUP: other limits, hosts and certificates, no call is lost; a mistake changes nothing."""

    def reload(self, daemon: Daemon, words: bytes) -> None:
        seen = tell(daemon, signal.SIGHUP)
        eventually(lambda: words in daemon.log.read_bytes()[seen:], f"the log says {words!r}")

    def test_dispatcher(self) -> None:
        """Limits and hosts change under load and beside a job that runs."""
        self.start()
        hosts = self.folder / "static.jsonl"
        running, release = self.held()
        with Calls(self.host) as calls:
            self.deployment.configure_harpcaller({"max_exec_time": "soon"})
            self.reload(self.deployment.harpcaller, b"stays as it was")
            (mistake,) = self.rpc.reload()["mistakes"]
            self.assertIn("max_exec_time", mistake)
            self.assertEqual(failure(self.rpc.host("new").add(1)), "unknown_host")

            self.write_hosts(hosts, HOST, "new")
            self.deployment.configure_harpcaller(
                {"max_exec_time": 0.5, "host_db_script": None, "host_db": None}
                | {"hosts_file": str(hosts)}
            )
            self.reload(self.deployment.harpcaller, b"is in force")
            self.assertEqual(failure(self.rpc.host("new").sleep(PATIENCE)), "timeout")

            self.write_hosts(hosts, HOST)
            self.assertTrue(self.rpc.reload()["reloaded"])
            self.assertEqual(failure(self.rpc.host("new").add(1)), "unknown_host")
        self.assertEqual(calls.faults, [])
        self.assertGreater(calls.count, 0)
        release.touch()
        self.assertEqual(running.get(), "held")

    def write_hosts(self, file: Path, *names: str) -> None:
        lines = [json.dumps({"hostname": name, **self.deployment.host_entry()}) for name in names]
        file.touch(mode=0o600)
        file.write_text("\n".join([*lines, ""]))

    def test_procedures(self) -> None:
        """Procedures change under load; what runs goes on with the old ones."""
        self.start()
        running, release = self.held()
        with Calls(self.host) as calls, open(self.deployment.procedures, "a") as procedures:
            procedures.write("\n\n@procedure\ndef added() -> str:\n    return 'here'\n")
            procedures.flush()
            self.reload(self.deployment.harpd, b"runs with what was read")
            self.assertEqual(self.host.added().get(), "here")
            procedures.write("nonsense")
            procedures.flush()
            self.reload(self.deployment.harpd, b"all stays as it was")
            self.assertEqual(self.host.added().get(), "here")
        self.assertEqual(calls.faults, [])
        self.assertGreater(calls.count, 0)
        release.touch()
        self.assertEqual(running.get(), "held")

    def test_certificates(self) -> None:
        """What harpd shows and what the dispatcher trusts change; a file that is none does not."""
        self.start()
        running, release = self.held()
        self.deployment.make_certificates()
        self.reload(self.deployment.harpd, b"runs with what was read")
        connect_harpd(self.deployment).close()  # verified by the new authority
        self.reload(self.deployment.harpcaller, b"is in force")
        self.assertEqual(self.host.add(1).get(), 2)
        release.touch()
        self.assertEqual(running.get(), "held")
        (self.folder / "harpd.pem").write_text("nonsense")
        self.reload(self.deployment.harpd, b"all stays as it was")
        connect_harpd(self.deployment).close()
        self.assertEqual(self.host.add(1).get(), 2)


class LimitTests(OperationTestCase):
    """How much runs at once, and that what must end does."""

    def test_capacity(self) -> None:
        """What waits for a host or for the dispatcher says so, and nothing else is held up."""
        self.start(max_running=2, max_running_per_host=1)
        entry = self.deployment.host_entry()
        self.deployment.set_hosts(dict.fromkeys((HOST, "one", "other", "third"), entry))
        self.assertEqual(self.rpc.refresh_hosts(), {"hosts_known": 4, "problem": None})
        first, release = self.held(self.rpc.host("one"))
        same = self.rpc.host("one").add(1)
        self.assertEqual(self.waits_for(same), ("waiting", "host"))
        second, release_second = self.held(self.rpc.host("other"))
        more = self.rpc.host("third").add(2)
        self.assertEqual(self.waits_for(more), ("waiting", "dispatcher"))
        release_second.touch()
        self.assertEqual(second.get(), "held")
        self.assertEqual(more.get(), 3)
        self.assertEqual(self.waits_for(same), ("waiting", "host"))
        release.touch()
        self.assertEqual(same.get(), 2)
        self.assertEqual(first.get(), "held")

    def waits_for(self, job: harp.RemoteCall) -> tuple[str, str | None]:
        detail = job.detail()
        return detail["state"], detail["waits_for"]

    def test_cancel_of_the_deaf(self) -> None:
        """Processes that ignore TERM, also in sessions of their own, are killed at last."""
        self.start()
        for cancelled in (True, False):
            host = self.host if cancelled else self.rpc.host(HOST, max_exec_time=0.5)
            job = host.stay_deaf()
            with job.follow(since=0) as packets:
                processes = next(packets)
            if cancelled:
                self.assertTrue(job.cancel())
                self.assertIs(job.result(), harp.CALL_CANCELLED)
            else:
                self.assertEqual(failure(job), "timeout")
            eventually(lambda: not any(map(is_alive, processes)), "all of them end")  # noqa: B023
