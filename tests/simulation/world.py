"""One run of the simulation: what happens next is decided by the seed, until all is at rest.

First a time of troubles; then nothing goes wrong any more, and everything must come to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from uuid import UUID

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from harpcaller.hosts import Host
from tests.simulation.book import Book
from tests.simulation.clients import ClientConnection
from tests.simulation.crowd import Crowd
from tests.simulation.disk_watch import DiskWatch
from tests.simulation.harpds import Harpd, HarpdConnection
from tests.simulation.network import ADDRESS, End, Network, SecuredEnd, TcpEnd
from tests.simulation.node import Hosts, Log, Node, product_under_a_seed
from tests.simulation.store import blank_disk
from tests.simulation.troubles import TROUBLES, any_capacity
from tests.simulation.violation import Violation

EPOCH = 1_700_000_000.0
MOST_STEPS = 20_000

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
        with product_under_a_seed(world.new_id, world.log, world.book.packets_came):
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
        self.book = Book(self.disk, self.now, self._tell)
        self.network = Network(random, self.clock.seconds)
        hosts = [
            Host(f"h{number}", "10.0.0.1", 4306, "dispatcher", f"secret{number}")
            for number in range(random.choice([1, 2, 3]))
        ]
        self.hosts = Hosts(hosts)
        self.harpds = {host.name: Harpd(host, self.book, random) for host in hosts}
        self.book.harpds.extend(self.harpds.values())
        self.capacity = any_capacity(random)
        self.watch = DiskWatch(self.disk, self.book, self.capacity)
        self.node: Node | None = None
        self.servers: list[End] = []
        self.crowd = Crowd(random, self.book, list(self.harpds), self._join)
        for harpd in self.harpds.values():
            harpd.babbles = self.crowd.follows
            if self.crowd.lines_up:
                harpd.keeps, harpd.leaves = 1.0, random.choice([0.05, 0.2])
        self._slowness = random.choice([0.2, 0.5, 0.9, 0.97])
        self._trouble = random.choice([0.0, 0.01, 0.03])
        self._disk_trouble = random.choice([0.0, 0.0, 0.0, 0.05])
        self._in_trouble = True

    def new_id(self) -> UUID:
        """Return what stands for chance in the product."""
        return UUID(int=self.random.getrandbits(128), version=4)

    def now(self) -> float:
        """Return unix seconds."""
        return EPOCH + self.clock.seconds()

    def live(self) -> None:
        """Run from the beginning to the end."""
        self.start()
        length = (self.crowd.calls_left + 2) * self.random.choice([15, 25, 45])
        for _ in range(length):
            self._step(self._happen)
        self._calm_down()
        self._come_to_rest()
        self.book.check_ended()
        self._check_quiet()
        self.crowd.ask_again()
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
            self.bury()
        return happened

    def _check_log(self) -> None:
        # Who is still waiting when the store is closed at a stop is told so by a closed connection.
        if not (self.book.disk_has_failed or self.node is None or self.node.is_stopping):
            raise Violation(f"the dispatcher logged a failure: {self.log.failures[0]}")
        self.log.failures.clear()

    def _happen(self) -> bool:
        roll = self.random.random()
        if roll < (0.2 if self.crowd.follows else 0.12):
            self.crowd.act()
        elif roll > 1 - self._trouble:
            trouble = self.random.choice(TROUBLES)
            self._tell(trouble.__name__)
            trouble(self)
        elif roll < 0.27:
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
                self.start()
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

    def _join(self, client: ClientConnection) -> bool:
        if self.node is None:
            return False
        _, server = self.network.join(TcpEnd, client, self.node.factory.buildProtocol(ADDRESS))
        server.excused = self.node.is_stopping
        self.servers.append(server)
        return True

    # The dispatcher.

    def start(self) -> None:
        """Begin a life of the dispatcher."""
        self._tell("the dispatcher starts")
        self.node = Node(
            self.clock,
            self.now,
            self.disk,
            self.network,
            self.hosts,
            self.capacity,
            self.log,
            self._slowness,
        )
        self.node.start()

    def bury(self) -> None:
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

    # The end.

    def _calm_down(self) -> None:
        self._in_trouble = False
        for harpd in self.harpds.values():
            harpd.is_down = False
            harpd.calm = True
            self.hosts.known[harpd.host.name] = harpd.host
        self.crowd.calm_down()

    def _check_quiet(self) -> None:
        for client in self.crowd.clients:
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
