"""One run of the simulation: what happens next is decided by the seed, until all is at rest.

First a time of troubles; then nothing goes wrong any more, and everything must come to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any
from uuid import UUID

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from harp.wire import dispatcher as wire
from harpcaller.connections import Endpoint
from harpcaller.hosts import Host
from harpcaller.jobs import Capacity
from harpcaller.queues import canonical_queue_name
from tests.simulation import requests
from tests.simulation.book import Book, Story
from tests.simulation.clients import ClientConnection
from tests.simulation.disk_watch import DiskWatch
from tests.simulation.harpds import Harpd, HarpdConnection
from tests.simulation.network import ADDRESS, End, Network, SecuredEnd, TcpEnd
from tests.simulation.node import Hosts, Log, Node, product_under_a_seed
from tests.simulation.store import blank_disk
from tests.simulation.violation import Violation

EPOCH = 1_700_000_000.0
MOST_STEPS = 20_000
UNKNOWN_JOB = str(UUID(int=7))
MAX_CLIENTS = 8

Trace = Callable[[str], None]


def run(seed: int, trace: Trace | None = None) -> None:
    """Simulate.

    :param trace: is told what happens.
    :raises Violation: if a promise was broken; tells seed, step and promise.
    """
    world = World(seed, trace)
    problems: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            problems.append(event["log_failure"].getTraceback())

    globalLogPublisher.addObserver(observe)
    try:
        with product_under_a_seed(world.new_id, world.log):
            world.live()
        if problems:
            raise Violation(f"errors that nobody handled: {problems}")
    except Exception as error:
        how = str(error) if isinstance(error, Violation) else f"{type(error).__name__}: {error}"
        raise Violation(f"seed {seed}, step {world.steps}: {how}") from error
    finally:
        globalLogPublisher.removeObserver(observe)


class World:
    """Everything, and what may happen to it."""

    def __init__(self, seed: int, trace: Trace | None) -> None:
        self.steps = 0
        self.log = Log()
        self._trace = trace
        random = self.random = Random(seed)
        self.clock = Clock()
        self.disk = blank_disk()
        self.book = Book(self.disk.raw, self.now, self._tell)
        self.network = Network(random, self.clock.seconds)
        hosts = [
            Host(f"h{number}", "10.0.0.1", 4306, "dispatcher", f"secret{number}")
            for number in range(random.choice([1, 2, 3]))
        ]
        self.hosts = Hosts(hosts)
        self.harpds = {host.name: Harpd(host, self.book, random) for host in hosts}
        self.book.harpds.extend(self.harpds.values())
        self.capacity = self._any_capacity()
        self.watch = DiskWatch(self.disk.raw, self.book, self.capacity)
        self.node: Node | None = None
        self.servers: list[End] = []
        self.clients: list[ClientConnection] = []
        self._calls_left = random.choice([2, 3, 4, 5, 6, 9])
        self._queues = [b'{"n":1}', b'{"n":2,"m":[]}'][: random.choice([1, 2])]
        self._queued = random.choice([0.3, 0.8, 1.0])
        self._trouble = random.choice([0.0, 0.01, 0.03])
        self._disk_trouble = random.choice([0.0, 0.0, 0.0, 0.05])
        self._bad_manners = random.choice([0.0, 0.1, 0.4])
        self._in_trouble = True

    def new_id(self) -> UUID:
        """Return what stands for chance in the product."""
        return UUID(int=self.random.getrandbits(128), version=4)

    def now(self) -> float:
        """Return unix seconds."""
        return EPOCH + self.clock.seconds()

    def live(self) -> None:
        """Run from the beginning to the end."""
        self._start()
        length = (self._calls_left + 2) * self.random.choice([15, 25, 45])
        for _ in range(length):
            self._step(self._happen)
        self._calm_down()
        self._come_to_rest()
        self.book.check_ended()
        self._check_quiet()
        self._ask_again()
        self._come_to_rest()
        self._check_quiet()

    # Steps.

    def _step(self, happen: Callable[[], bool]) -> bool:
        self.steps += 1
        happened = happen()
        if self.log.failures:
            self._check_log()
        if self.node is not None and self.node.is_gone:
            if self.node.is_stopping and not self.book.disk_has_failed:
                self.book.check_stopped()
            self._bury()
        return happened

    def _check_log(self) -> None:
        # Who is still waiting when the store is closed at a stop is told so by a closed connection.
        if not (self.book.disk_has_failed or self.node is None or self.node.is_stopping):
            raise Violation(f"the dispatcher logged a failure: {self.log.failures[0]}")
        self.log.failures.clear()

    def _happen(self) -> bool:
        roll = self.random.random()
        if roll < 0.12:
            self._client_acts()
        elif roll < 0.12 + self._trouble:
            self._get_into_trouble()
        elif roll < 0.21:
            self._let_time_pass()
        else:
            return self._go_on()
        return True

    def _go_on(self) -> bool:
        """Do one thing that is due; tell whether there was any."""
        roll = self.random.random()
        ways = [self.network.step, self._store_acts, self._harpd_acts, self._connect]
        first = 0 if roll < 0.5 else 1 if roll < 0.75 else 2 if roll < 0.9 else 3
        return any(ways[(first + more) % 4]() for more in range(4))

    def _come_to_rest(self) -> None:
        """Go on until there is nothing left that could happen."""
        while self.steps < MOST_STEPS:
            if self._step(self._go_on):
                continue
            if self.node is None:
                self._start()
            elif self.clock.calls:
                self._advance(self.clock.calls[0].getTime() - self.clock.seconds())
            else:
                return
        raise Violation("it does not come to rest")

    # What can happen.

    def _connect(self) -> bool:
        network = self.network
        if network.handshakes and self.random.random() < 0.5:
            end = network.handshakes.pop(0)
            if self._in_trouble and self.random.random() < 0.05:
                self._tell("a handshake fails")
                end.other.drop(reset=self.random.random() < 0.5)
            else:
                end.secure()
            return True
        if not network.attempts:
            return bool(network.handshakes)
        attempt = network.attempts.pop(0)
        if attempt.given_up:
            return True
        harpd = self.harpds[attempt.host.name]
        if harpd.is_down or (self._in_trouble and self.random.random() < 0.03):
            self._tell(f"{attempt.host.name} refuses a connection")
            attempt.refuse(self.random)
            return True
        near = attempt.factory.buildProtocol(ADDRESS)
        client, _ = network.join(SecuredEnd, near, HarpdConnection(harpd))
        assert isinstance(client, SecuredEnd)
        self.servers.append(client)
        network.handshakes.append(client)
        attempt.answer.callback(near)
        return True

    def _store_acts(self) -> bool:
        if self.node is None:
            return False
        node, store, random = self.node, self.node.store.threads, self.random
        roll = random.random()
        if roll < 0.4 and store.answer(random):
            return True
        if store.may_commit and (roll < 0.8 or not store.may_look):
            count = store.waiting if random.random() < 0.7 else random.randint(1, store.waiting)
            is_full = self._in_trouble and random.random() < self._disk_trouble
            self.book.disk_has_failed |= is_full
            self._tell(f"{count} changes are committed{' to a full disk' if is_full else ''}")
            store.commit(count, is_full)
            # Of another capacity that a full disk did not take, those that wait hear later.
            releases = node.is_ready and not (node.is_stopping or self.book.disk_has_failed)
            self.watch.check(not store.waiting, releases)
            if node.stopped_at is not None:
                self.watch.check_waiting(node.stopped_at)
            return True
        if store.may_look:
            store.look()
            return True
        return store.answer(random)

    def _harpd_acts(self) -> bool:
        calls = [call for harpd in self.harpds.values() for call in harpd.calls]
        while calls:
            call = calls.pop(int(self.random.random() * len(calls)))
            if call.act():
                return True
        return False

    def _let_time_pass(self) -> None:
        roll = self.random.random()
        if roll < 0.8 or not self.clock.calls:
            self._advance(self.random.choice([0.001, 0.1, 1.0, 3.0]))
        else:
            self._advance(self.clock.calls[0].getTime() - self.clock.seconds())

    def _advance(self, seconds: float) -> None:
        self._tell(f"{seconds:g} s pass")
        self.clock.advance(max(0.0, seconds))
        for harpd in self.harpds.values():
            for call in harpd.calls:
                self._check_limits(call)

    def _check_limits(self, call: HarpdConnection) -> None:
        near = call.transport.other
        if call.story is None or not call.counts:
            return
        if not near.reading:
            if self.node is not None and self.node.store.threads.is_idle:
                raise Violation(f"all is recorded, yet {call.story} is not read from")
            return
        now = self.clock.seconds()
        if self.node is not None and self.node.ends_at is not None and now > self.node.ends_at:
            raise Violation(f"the dispatcher should have stopped, yet {call.story} goes on")
        row = self.book.row_of(call.story)
        if now - call.since > row.max_exec_time + 1e-6:
            raise Violation(f"{row.id} has run for {now - call.since} s")
        if now - max(call.since, near.heard) > row.timeout + 1e-6:
            raise Violation(f"{row.id} has been silent for {now - near.heard} s")

    # Clients.

    def _client_acts(self) -> None:
        random = self.random
        self.clients = [client for client in self.clients if not client.is_lost]
        if self.clients and random.random() < self._bad_manners:
            client = random.choice(self.clients)
            if client.transport.is_open:
                self._tell("a client misbehaves")
                client.misbehave(random)
            return
        client_or_none = self._any_client()
        if client_or_none is None:
            return
        if random.random() < 0.01:
            client_or_none.babble(random)
            return
        asked = self._any_request()
        self._tell(f"a client sends {wire.encode_request(asked.message).decode().strip()}")
        client_or_none.ask(asked)

    def _any_client(self) -> ClientConnection | None:
        idle = [client for client in self.clients if client.is_idle and client.transport.is_open]
        if idle and self.random.random() < 0.7:
            return self.random.choice(idle)
        return self._new_client()

    def _new_client(self) -> ClientConnection | None:
        if self.node is None or len(self.clients) >= MAX_CLIENTS:
            return None
        client = ClientConnection()
        _, server = self.network.join(TcpEnd, client, self.node.factory.buildProtocol(ADDRESS))
        server.excused = self.node.is_stopping
        self.servers.append(server)
        self.clients.append(client)
        return client

    def _any_request(self) -> requests.Asked:
        random, book = self.random, self.book
        keepalive = random.random() < 0.4
        if self._calls_left and (random.random() < 0.4 or not book.acknowledged):
            self._calls_left -= 1
            return requests.AskedCall(book, self._any_call(), keepalive)
        roll = random.random()
        keyed = [story for story in book.stories if story.call.idempotency_key is not None]
        if keyed and roll < 0.15:
            return requests.AskedCall(book, random.choice(keyed), keepalive)
        if roll < 0.25 or not book.acknowledged:
            return requests.about_all(book, random, self._queues, list(self.harpds))
        recent = book.acknowledged[-2:] if roll < 0.7 else book.acknowledged
        job_id = random.choice(recent) if roll < 0.97 else UNKNOWN_JOB
        return requests.about_job(book, random, job_id, keepalive)

    def _any_call(self) -> Story:
        random = self.random
        changes: dict[str, Any] = {}
        queue = None
        if random.random() < self._queued:
            name = random.choice(self._queues)
            queue = canonical_queue_name(name)
            changes["queue"] = wire.QueueOption(msgspec.Raw(name), random.choice([1, 1, 2, 3]))
        if random.random() < 0.4:
            changes["timeout"] = random.choice([0.5, 5.0, 100.0])
        if random.random() < 0.3:
            changes["max_exec_time"] = random.choice([1.0, 10.0, 1000.0])
        if random.random() < 0.4:
            changes["idempotency_key"] = f"key{len(self.book.stories)}"
        if random.random() < 0.15:
            key = msgspec.Raw(b'{"d":%d}' % random.randint(0, 1))
            changes["dedup"] = wire.Dedup(key, random.choice([0.5, 5.0, 500.0]))
        host = random.choice(list(self.harpds)) if random.random() < 0.97 else "nowhere"
        call = wire.Call(
            harpcaller=1, host=host, procedure="p", arguments=msgspec.Raw(b"[]"), **changes
        )
        return self.book.intend(call, queue)

    # Trouble.

    def _get_into_trouble(self) -> None:
        trouble = self.random.choice(
            [
                self._kill,
                self._kill,
                self._stop,
                self._break_connection,
                self._break_connection,
                self._break_call,
                self._close_idle,
                self._harpd_goes_or_comes,
                self._change_capacity,
                self._change_capacity,
                self._host_goes_or_comes,
                self._trust_anew,
            ]
        )
        self._tell(trouble.__name__[1:])
        trouble()

    def _start(self) -> None:
        self._tell("the dispatcher starts")
        self.node = Node(
            self.clock, self.now, self.disk, self.network, self.hosts, self.capacity, self.log
        )
        self.node.start()

    def _kill(self) -> None:
        if self.node is None:
            self._start()
        else:
            self._bury()

    def _stop(self) -> None:
        if self.node is not None and not self.node.is_stopping:
            for end in self.servers:
                end.excused = end.other.excused = True
            self.node.stop(self.random.choice([0.0, 1.0, 10.0]), self.random)

    def _bury(self) -> None:
        """Take away all that a dispatcher had, but the disk."""
        self.node = None
        self.clock.calls.clear()  # nobody else uses it
        self.network.attempts.clear()
        self.network.handshakes.clear()
        for end in self.servers:
            end.other.excused = True
            if end.connected:
                end.drop(reset=self.random.random() < 0.5)
        self.servers = []
        self.book.check_kept()

    def _break_connection(self) -> None:
        self.servers = [end for end in self.servers if end.connected]
        if self.servers:
            end = self.random.choice(self.servers)
            end.excused = end.other.excused = True
            end.cut()

    def _break_call(self) -> None:
        calls = [call for harpd in self.harpds.values() for call in harpd.calls]
        if calls:
            self.random.choice(calls).die()

    def _close_idle(self) -> None:
        for harpd in self.harpds.values():
            for connection in list(harpd.idle):
                connection.close_idle()

    def _harpd_goes_or_comes(self) -> None:
        harpd = self.random.choice(list(self.harpds.values()))
        harpd.is_down = not harpd.is_down
        if harpd.is_down:
            for connection in [*harpd.calls, *harpd.idle]:
                connection.die()

    def _change_capacity(self) -> None:
        if self.node is not None and self.node.is_ready and not self.node.is_stopping:
            self.capacity = self._any_capacity()
            self.watch.allow(self.capacity)
            self._set_capacity(self.node)

    def _set_capacity(self, node: Node) -> None:
        setting: Deferred[None] = Deferred.fromCoroutine(
            node.dispatcher.set_capacity(self.capacity)
        )
        setting.addErrback(lambda failure: None if self.book.disk_has_failed else failure)

    def _any_capacity(self) -> Capacity:
        random = self.random
        return Capacity(random.choice([1000, 1000, 1, 2, 3]), random.choice([None, None, 1, 2]))

    def _host_goes_or_comes(self) -> None:
        name = self.random.choice(list(self.harpds))
        if self.hosts.known.pop(name, None) is None:
            self.hosts.known[name] = self.harpds[name].host

    def _trust_anew(self) -> None:
        if self.node is not None:
            endpoint: Endpoint = self.node.endpoint
            self.node.connections.use(endpoint)

    # The end.

    def _calm_down(self) -> None:
        self._in_trouble = False
        for harpd in self.harpds.values():
            harpd.is_down = False
            harpd.calm = True
            self.hosts.known[harpd.host.name] = harpd.host
        for client in self.clients:
            if not client.is_lost:
                client.transport.resumeProducing()

    def _ask_again(self) -> None:
        """Have the end and all packets of some jobs told once more."""
        self.clients = []
        for job_id in self.random.sample(
            self.book.acknowledged, min(2, len(self.book.acknowledged))
        ):
            for message in (
                wire.GetResult(harpcaller=1, get_result=job_id),
                wire.FollowStream(harpcaller=1, follow_stream=job_id, since=0),
            ):
                client = self._new_client()
                assert client is not None
                kind: Any = (
                    requests.AskedResult
                    if isinstance(message, wire.GetResult)
                    else requests.AskedStream
                )
                client.ask(kind(self.book, message, job_id))

    def _check_quiet(self) -> None:
        for client in self.clients:
            if client.asked is not None and not client.is_lost:
                raise Violation(f"{client.asked.message} is not answered at rest")
        for harpd in self.harpds.values():
            for call in harpd.calls:
                raise Violation(f"at rest {harpd.host.name} still runs call {call.story}")
        for end in self.servers:
            if end.connected:
                raise Violation(f"at rest {end} is still connected")

    def _tell(self, what: str) -> None:
        if self._trace is not None:
            self._trace(f"{self.steps:5} {self.clock.seconds():9.3f} {what}")
