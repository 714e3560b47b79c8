"""The clients of the simulation as a crowd: who of them does what next."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any
from uuid import UUID

import msgspec

from harp.wire import dispatcher as wire
from harpcaller.queues import canonical_queue_name
from tests.simulation import people, requests
from tests.simulation.book import Book, Story
from tests.simulation.clients import ClientConnection

UNKNOWN_JOB = str(UUID(int=7))
MAX_CLIENTS = 8

Join = Callable[[ClientConnection], bool]
"""Connects a client with the dispatcher; tells whether there is one."""


class Crowd:
    """All clients.

    :param hosts: the names of the hosts that there are.
    :ivar follows: whether most of what they do is to follow few jobs that stream a lot.
    :ivar lines_up: whether all their calls wait for each other and are for one host, which makes
        much use of connections that are kept.
    """

    def __init__(self, random: Random, book: Book, hosts: list[str], join: Join) -> None:
        self.random = random
        self.book = book
        self.clients: list[ClientConnection] = []
        self.follows = random.random() < 0.3
        self.lines_up = not self.follows and random.random() < 0.4
        some = [1, 2] if self.follows else [6, 9] if self.lines_up else [2, 3, 4, 5, 6, 9]
        self.calls_left = random.choice(some)
        self._hosts = hosts[:1] if self.lines_up else hosts
        self._join = join
        queues = 1 if self.lines_up else random.choice([1, 2])
        self._queues = [b'{"n":1}', b'{"n":2,"m":[]}'][:queues]
        self._queued = 1.0 if self.lines_up else random.choice([0.3, 0.8, 1.0])
        self._again: list[requests.Asked] = []
        self._bad_manners = random.choice([0.0, 0.1, 0.4])

    def act(self) -> None:
        """Let one client do something."""
        random = self.random
        self.clients = [client for client in self.clients if not client.is_lost]
        if self.clients and random.random() < self._bad_manners:
            client = random.choice(self.clients)
            if client.transport.is_open:
                self.book.tell("a client misbehaves")
                client.misbehave(random)
            return
        client_or_none = self._any_client()
        if client_or_none is None:
            return
        if random.random() < 0.01:
            client_or_none.babble(random)
            return
        again = bool(self._again) and random.random() < 0.5
        asked = self._again.pop() if again else self._any_request()
        line = wire.encode_request(asked.message).decode().strip()
        self.book.tell(f"a client sends {'again ' if again else ''}{line}")
        client_or_none.ask(asked)

    def _any_client(self) -> ClientConnection | None:
        idle = [client for client in self.clients if client.is_idle and client.transport.is_open]
        if idle and self.random.random() < 0.7:
            return self.random.choice(idle)
        return self._enter()

    def _any_request(self) -> requests.Asked:
        random, book = self.random, self.book
        keepalive = random.random() < 0.4
        if self.calls_left and (random.random() < 0.4 or not book.acknowledged):
            self.calls_left -= 1
            return requests.AskedCall(book, self._any_call(), keepalive)
        roll = random.random()
        keyed = [story for story in book.stories if story.call.idempotency_key is not None]
        if keyed and roll < 0.15:
            return requests.AskedCall(book, random.choice(keyed), keepalive)
        if roll < 0.25 or not book.acknowledged:
            return requests.about_all(book, random, self._queues, self._hosts)
        recent = book.acknowledged[-2:] if roll < 0.7 else book.acknowledged
        job_id = random.choice(recent) if roll < 0.97 else UNKNOWN_JOB
        if self.follows and roll > 0.4:
            return requests.to_follow(book, random, job_id, keepalive)
        return requests.about_job(book, random, job_id, keepalive)

    def _any_call(self) -> Story:
        random = self.random
        auth = people.anybody(random)
        changes: dict[str, Any] = {"auth": auth}
        queue = None
        if random.random() < self._queued:
            name = random.choice(self._queues)
            queue = canonical_queue_name(name)
            concurrency = 1 if self.lines_up else random.choice([1, 1, 2, 3])
            changes["queue"] = wire.QueueOption(msgspec.Raw(name), concurrency)
        if random.random() < 0.4:
            changes["timeout"] = random.choice([0.5, 5.0, 100.0])
        if random.random() < 0.3:
            changes["max_exec_time"] = random.choice([1.0, 10.0, 1000.0])
        if random.random() < 0.4:
            changes["idempotency_key"] = self._any_key(auth)
        if random.random() < 0.15:
            key = msgspec.Raw(b'{"d":%d}' % random.randint(0, 1))
            changes["dedup"] = wire.Dedup(key, random.choice([0.5, 5.0, 500.0]))
        host = random.choice(self._hosts) if random.random() < 0.97 else "nowhere"
        call = wire.Call(
            harpcaller=1, host=host, procedure="p", arguments=msgspec.Raw(b"[]"), **changes
        )
        return self.book.intend(people.with_arguments(call, len(self.book.stories), random), queue)

    def _any_key(self, auth: wire.Auth | None) -> str:
        """Return a key that is new for who calls, though others may have it."""
        calls = [story.call for story in self.book.stories]
        mine = {call.idempotency_key for call in calls if call.auth == auth}
        others = {call.idempotency_key for call in calls if call.idempotency_key} - mine
        if others and self.random.random() < 0.5:
            return self.random.choice(sorted(filter(None, others)))
        return f"key{len(calls)}"

    def _enter(self) -> ClientConnection | None:
        client = ClientConnection(self._unanswered)
        if len(self.clients) >= MAX_CLIENTS or not self._join(client):
            return None
        self.clients.append(client)
        return client

    def _unanswered(self, asked: requests.Asked) -> None:
        """Learn of a request whose answer did not come; what is safe to be sent again may be."""
        message = asked.message
        if not isinstance(message, wire.Call) or message.idempotency_key is not None:
            self._again.append(asked)

    def calm_down(self) -> None:
        """Read what comes, all of you."""
        for client in self.clients:
            if not client.is_lost:
                client.transport.resumeProducing()

    def ask_again(self) -> None:
        """Have the end and all packets of some jobs told once more."""
        self.clients = []
        known = self.book.acknowledged
        for job_id in self.random.sample(known, min(2, len(known))):
            result = wire.GetResult(harpcaller=1, get_result=job_id)
            stream = wire.FollowStream(harpcaller=1, follow_stream=job_id, since=0)
            for asked in (
                requests.AskedResult(self.book, result, job_id),
                requests.AskedStream(self.book, stream, job_id),
            ):
                client = self._enter()
                assert client is not None
                client.ask(asked)
