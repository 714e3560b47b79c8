"""What can go wrong, and that each of it ends in the result that the error table gives it."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

import trustme
from twisted.trial.unittest import SynchronousTestCase

import harp
from harp.errors import ERROR_TYPES
from harpcaller.demo.deployment import Deployment
from tests.acceptance.daemons import (
    HOST,
    deploy,
    eventually,
    harpd_processes,
    is_alive,
    shared,
)


def caller(deployment: Deployment) -> harp.HarpCaller:
    """Return a client of the deployment's dispatcher."""
    return harp.HarpCaller("127.0.0.1", deployment.port)


def first_packet(job: harp.RemoteCall) -> Any:
    """Return the job's first packet as soon as it is there."""
    with job.follow(since=0) as packets:
        return next(packets)


class FaultsOfTheCallTests(SynchronousTestCase):
    """The daemons are as they should be, the call is not."""

    def error(self, job: harp.RemoteCall) -> harp.RemoteError:
        outcome = job.result(wait=True)
        assert isinstance(outcome, harp.RemoteError), outcome
        self.assertIn(outcome.type, ERROR_TYPES)
        self.assertIsInstance(job.end_time(), int)
        with self.assertRaises(harp.RemoteError):
            job.get()
        return outcome

    def call(self, procedure: str, *args: Any, **kwargs: Any) -> harp.RemoteCall:
        job = getattr(caller(shared()).host(HOST), procedure)(*args, **kwargs)
        assert isinstance(job, harp.RemoteCall)
        return job

    def test_unknown_host(self) -> None:
        """A host that is not in the registry is named."""
        error = self.error(caller(shared()).host("nowhere.example.net").add(1))
        self.assertEqual(error.type, "unknown_host")
        self.assertIn("nowhere.example.net", error.message)

    def test_no_such_procedure(self) -> None:
        """The procedure is named."""
        error = self.error(self.call("nothing"))
        self.assertEqual(error.type, "no_such_procedure")
        self.assertEqual(error.data, {"procedure": "nothing"})

    def test_arguments_do_not_fit(self) -> None:
        """Too many, too few, and unknown ones."""
        for args, kwargs in (((1, 2, 3), {}), ((), {}), ((), {"a": 1, "c": 2})):
            error = self.error(self.call("add", *args, **kwargs))
            self.assertEqual(error.type, "invalid_argument_list")

    def test_raises(self) -> None:
        """An exception is not an error: the procedure did run."""
        outcome = self.call("fail", "no such service").result(wait=True)
        assert isinstance(outcome, harp.RemoteException)
        self.assertEqual((outcome.type, outcome.message), ("LookupError", "no such service"))
        self.assertEqual(outcome.data, {"class": "LookupError", "module": "builtins"})
        with self.assertRaises(harp.RemoteException):
            self.call("fail", "again").get()

    def test_raises_in_mid_stream(self) -> None:
        """The packets before it are kept; reading them raises nothing."""
        job = self.call("stream_then_fail")
        self.assertEqual(job.follow(since=0).all(), [1])
        self.assertIsInstance(job.result(), harp.RemoteException)

    def test_result_that_json_cannot_carry(self) -> None:
        """NaN, and an object of Python's, as a result and as a packet."""
        for procedure in ("return_nan", "return_object", "stream_nan"):
            error = self.error(self.call(procedure))
            self.assertEqual(error.type, "invalid_message")
            self.assertIn("JSON can't carry", error.message)

    def test_exits(self) -> None:
        """A process that ends by itself is told by its exit status, 0 too."""
        for status in (0, 7):
            error = self.error(self.call("exit_hard", status))
            self.assertEqual((error.type, error.data), ("killed", {"exit_status": status}))

    def test_killed(self) -> None:
        """A process that is killed is told by the signal."""
        for number in (9, 11, 15):
            error = self.error(self.call("die_by", number))
            self.assertEqual(error.type, "killed")
        self.assertEqual(self.error(self.call("die_by", 9)).data, {"signal": 9})

    def test_crash_leaves_no_children(self) -> None:
        """What a process that is killed had started goes with it."""
        job = self.call("crash_with_child")
        child = first_packet(job)
        self.assertEqual(self.error(job).data, {"signal": 11})
        eventually(lambda: not is_alive(child), "the child ends")

    def test_cancelled_at_birth(self) -> None:
        """A call that is cancelled while it is being forked is told so, not killed in the end."""
        with tempfile.NamedTemporaryFile() as diary:

            def written(word: str) -> set[str]:
                lines = Path(diary.name).read_text().splitlines()
                return {line.removeprefix(word) for line in lines if line.startswith(word)}

            jobs = []
            for _ in range(60):
                jobs.append(self.call("keep_diary", diary.name))
                jobs[-1].cancel()
            self.assertEqual({job.result(wait=True) for job in jobs}, {harp.CALL_CANCELLED})
            eventually(
                lambda: (
                    written("began ") <= written("told ")
                    and not any(is_alive(int(pid)) for pid in written("began "))
                ),
                "every call that began was told to end",
            )

    def test_large_result(self) -> None:
        """A result of many slices arrives whole, through both daemons."""
        self.assertEqual(self.call("large", 12 * 1024).get(), "x" * (12 * 1024 * 1024))

    def test_closes_its_descriptors(self) -> None:
        """A result that can't be reported is not written into somebody else's file."""
        with tempfile.NamedTemporaryFile() as file:
            self.assertEqual(self.error(self.call("close_descriptors", file.name)).type, "killed")
            self.assertEqual(file.read(), b"")

    def test_prints_megabytes(self) -> None:
        """What is printed delays the result no more than the log takes, and is all there."""
        lines = shared().harpd.log.read_bytes().count(b"x" * 1023)
        self.assertEqual(self.call("print_much", 4).get(), 4)
        eventually(
            lambda: shared().harpd.log.read_bytes().count(b"x" * 1023) == lines + 4096,
            "every line is in the log",
        )

    def test_time_limit_of_the_procedure(self) -> None:
        """The limit that the decorator sets."""
        error = self.error(self.call("sleep_too_long"))
        self.assertEqual(error.type, "timeout")
        self.assertIn("0.3 s", error.message)

    def test_time_limits_of_the_call(self) -> None:
        """The message says which limit it was, and the process on the target is gone."""
        for option in ("timeout", "max_exec_time"):
            job = caller(shared()).host(HOST, **{option: 0.3}).stay()  # type: ignore[arg-type]
            error = self.error(job)
            self.assertEqual(error.type, "timeout")
            self.assertTrue(error.message.startswith(option + ":"), error.message)
            processes = job.stream().all()[0]
            eventually(lambda: not any(map(is_alive, processes)), "the call's processes end")  # noqa: B023

    def test_cancel(self) -> None:
        """A cancelled job ends at once, and so do its processes on the target."""
        job = self.call("stay")
        processes = first_packet(job)
        self.assertTrue(all(map(is_alive, processes)))
        self.assertTrue(job.cancel())
        self.assertIs(job.result(wait=True), harp.CALL_CANCELLED)
        with self.assertRaises(harp.CancelledException):
            job.get()
        self.assertFalse(job.cancel())
        eventually(lambda: not any(map(is_alive, processes)), "the call's processes end")

    def test_cancel_of_a_flood(self) -> None:
        """A call that streams faster than anybody reads ends as any other when it is cancelled."""
        job = self.call("flood")
        packets = job.follow(since=0)
        process = next(packets)
        self.assertTrue(job.cancel())
        eventually(lambda: not is_alive(process), "the call's process ends")
        numbers = [number for number, _ in job.stream(numbered=True)]
        self.assertEqual(numbers, list(range(len(numbers))))
        # The follower, who did not read all the while, has missed nothing.
        self.assertEqual(len(packets.all()), len(numbers) - 1)

    def test_follower_leaves(self) -> None:
        """A client that leaves in mid-follow disturbs neither the job nor its other followers."""
        job = self.call("stay")
        with job.follow(since=0) as leaving:
            next(iter(leaving))
        staying = job.follow(since=0)
        processes = next(iter(staying))
        self.assertTrue(all(map(is_alive, processes)))
        job.cancel()
        self.assertEqual(staying.all(), [])


class FaultsOfTheHostTests(SynchronousTestCase):
    """The call is sound, the host, or the way to it, is not."""

    def setUp(self) -> None:
        self.deployment = deploy()
        self.addCleanup(self.deployment.stop)

    def error(self, **host: Any) -> harp.RemoteError:
        self.deployment.set_hosts({"target": self.deployment.host_entry(**host)})
        self.deployment.harpcaller.start()
        job = caller(self.deployment).host("target", timeout=5).add(1)
        outcome = job.result(wait=True)
        self.deployment.harpcaller.stop()
        assert isinstance(outcome, harp.RemoteError), outcome
        return outcome

    def test_nothing_listens(self) -> None:
        """A refused connection."""
        error = self.error()  # harpd was not started
        self.assertEqual(error.type, "network_error")
        self.assertIn("refused", error.message)

    def test_no_such_address(self) -> None:
        """A name that nobody knows."""
        error = self.error(address="nowhere.invalid")
        self.assertEqual(error.type, "network_error")

    def test_wrong_password(self) -> None:
        """The answer is harpd's own."""
        self.deployment.harpd.start()
        error = self.error(credentials={"user": "panel", "password": "wrong"})
        self.assertEqual(error.type, "auth_error")

    def test_certificate_of_an_unknown_authority(self) -> None:
        """The password is not sent to a harpd that is not trusted."""
        self.deployment.harpd.start()
        trustme.CA().cert_pem.write_to_path(str(self.deployment.ca_file))
        error = self.error()
        self.assertEqual(error.type, "ssl")
        self.assertIn("authority", error.message)
        self.assertNotIn('"audit"', self.deployment.harpd.log.read_text())

    def test_certificate_of_another_host(self) -> None:
        """The authority is right, the name and the address are not."""
        authority = trustme.CA()
        certificate = authority.issue_cert("other.example.net")
        authority.cert_pem.write_to_path(str(self.deployment.ca_file))
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        (self.deployment.folder / "harpd.pem").write_bytes(chain)
        (self.deployment.folder / "harpd.key").write_bytes(certificate.private_key_pem.bytes())
        self.deployment.harpd.start()
        error = self.error()
        self.assertEqual(error.type, "ssl")
        self.assertIn("other.example.net", error.message)

    def test_no_tls(self) -> None:
        """Something listens that speaks no TLS."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.deployment.set_hosts(
                {"target": self.deployment.host_entry(port=listening.getsockname()[1])}
            )
            self.deployment.harpcaller.start()
            job = caller(self.deployment).host("target").add(1)
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"220 mail.example.net ESMTP\r\n")
                outcome = job.result(wait=True)
        assert isinstance(outcome, harp.RemoteError), outcome
        self.assertEqual(outcome.type, "ssl")

    def test_silence_in_the_handshake(self) -> None:
        """A host that accepts and says nothing costs the job's timeout, no more."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.deployment.set_hosts(
                {"target": self.deployment.host_entry(port=listening.getsockname()[1])}
            )
            self.deployment.harpcaller.start()
            outcome = caller(self.deployment).host("target", timeout=0.3).add(1).result(wait=True)
        assert isinstance(outcome, harp.RemoteError), outcome
        self.assertEqual(outcome.type, "timeout")


class DeathTests(SynchronousTestCase):
    """A daemon is killed as by a power failure."""

    def setUp(self) -> None:
        self.deployment = deploy()
        self.addCleanup(self.deployment.stop)
        self.deployment.__enter__()
        self.host = caller(self.deployment).host(HOST)

    def test_harpd_dies_in_mid_stream(self) -> None:
        """The job ends as closed with its packets kept, and none of its processes survives."""
        job = self.host.stay()
        packets = iter(job.follow(since=0))
        processes = next(packets)
        inner = [pid for pid in harpd_processes(self.deployment).values() if pid is not None]
        self.assertEqual(len(inner), 3)
        self.deployment.harpd.kill()
        self.assertEqual(list(packets), [])
        outcome = job.result(wait=True)
        assert isinstance(outcome, harp.RemoteError)
        self.assertEqual(outcome.type, "closed")
        self.assertTrue(ERROR_TYPES[outcome.type].may_have_run)
        self.assertEqual(job.stream().all(), [processes])
        eventually(lambda: not any(map(is_alive, processes)), "the call's processes end")
        eventually(lambda: not any(map(is_alive, inner)), "keeper and zygote end")

    def test_zygote_dies(self) -> None:
        """Its calls are reported as killed, and another takes its place."""
        job = self.host.stay()
        processes = first_packet(job)
        zygote = harpd_processes(self.deployment)["zygote"]
        assert zygote is not None
        os.kill(zygote, signal.SIGKILL)
        outcome = job.result(wait=True)
        assert isinstance(outcome, harp.RemoteError)
        self.assertEqual(outcome.type, "killed")
        eventually(lambda: not any(map(is_alive, processes)), "the call's processes end")
        self.assertEqual(self.host.add(1).get(), 2)

    def test_keeper_dies(self) -> None:
        """Calls go on and new ones are taken; that nothing can be read again is logged."""
        job = self.host.stay()
        processes = first_packet(job)
        keeper = harpd_processes(self.deployment)["keeper"]
        assert keeper is not None
        assert self.deployment.harpd.process is not None
        os.kill(keeper, signal.SIGKILL)
        log = self.deployment.harpd.log
        eventually(lambda: b"the keeper died" in log.read_bytes(), "it is logged")
        self.deployment.harpd.process.send_signal(signal.SIGHUP)
        eventually(lambda: b"all stays as it was" in log.read_bytes(), "a reload is refused")
        self.assertEqual(self.host.add(1).get(), 2)
        self.assertTrue(all(map(is_alive, processes)))
        self.deployment.harpd.kill()
        eventually(lambda: not any(map(is_alive, processes)), "the call's processes end")

    def test_dispatcher_dies(self) -> None:
        """No job is lost: ended ones keep results, running ones say so, waiting ones run."""
        ended = self.host.count(3)
        self.assertEqual(ended.get(), 3)
        queued = caller(self.deployment).host(HOST, queue={"of": "this test"})
        running = queued.stay()
        processes = first_packet(running)
        waiting = [queued.add(number) for number in range(5)]
        self.deployment.harpcaller.kill()
        eventually(lambda: not any(map(is_alive, processes)), "the call's processes end")
        self.deployment.harpcaller.start()
        self.assertEqual(ended.get(), 3)
        self.assertEqual(ended.stream().all(), [0, 1, 2])
        outcome = running.result(wait=True)
        assert isinstance(outcome, harp.RemoteError)
        self.assertEqual(outcome.type, "missing_result")
        self.assertEqual(running.stream().all(), [processes])
        self.assertEqual([job.get() for job in waiting], [1, 2, 3, 4, 5])

    def test_dispatcher_is_stopped(self) -> None:
        """Running jobs end as shutdown, waiting ones go on at the next start."""
        queued = caller(self.deployment).host(HOST, queue={"of": "this test"})
        running, waiting = queued.stay(), queued.add(1)
        first_packet(running)
        self.assertEqual(self.deployment.harpcaller.stop(), -signal.SIGTERM)
        self.deployment.harpcaller.start()
        outcome = running.result()
        assert isinstance(outcome, harp.RemoteError)
        self.assertEqual(outcome.type, "shutdown")
        self.assertEqual(waiting.get(), 2)

    def test_harpd_is_stopped(self) -> None:
        """Running calls end as shutdown."""
        job = self.host.stay()
        processes = first_packet(job)
        self.assertEqual(self.deployment.harpd.stop(), -signal.SIGTERM)
        outcome = job.result(wait=True)
        assert isinstance(outcome, harp.RemoteError)
        self.assertEqual(outcome.type, "shutdown")
        eventually(lambda: not any(map(is_alive, processes)), "the call's processes end")


class ReloadTests(SynchronousTestCase):
    """harpd reads its files again while it works."""

    def test_hang_up(self) -> None:
        """After SIGHUP there are other procedures; the call that runs and its harpd go on."""
        with deploy() as deployment:
            host = caller(deployment).host(HOST)
            job = host.stay()
            processes = first_packet(job)
            added = "\n\n@procedure\ndef added() -> str:\n    return 'here'\n"
            with open(deployment.procedures, "a") as procedures:
                procedures.write(added)
            harpd = deployment.harpd.process
            assert harpd is not None
            harpd.send_signal(signal.SIGHUP)
            eventually(
                lambda: b"harpd runs with what was read" in deployment.harpd.log.read_bytes(),
                "harpd has read its files",
            )
            self.assertEqual(host.added().get(), "here")
            self.assertTrue(all(map(is_alive, processes)))
            with open(deployment.procedures, "a") as procedures:
                procedures.write("nonsense")
            harpd.send_signal(signal.SIGHUP)
            eventually(
                lambda: b"all stays as it was" in deployment.harpd.log.read_bytes(),
                "harpd has found the mistake",
            )
            self.assertEqual(host.added().get(), "here")
            self.assertTrue(job.cancel())
            eventually(lambda: not any(map(is_alive, processes)), "the call's processes end")
