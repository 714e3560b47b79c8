"""What submits a job, whichever way the program waits for the answer."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from harp import access, calls, checks, outcomes
from harp.dispatchers import Dispatcher
from harp.operator import Operator
from harp.wire import dispatcher

H = TypeVar("H")
J = TypeVar("J")
L = TypeVar("L")


class Caller(Operator[L], Generic[H, J, L]):
    """The core of `harp.HarpCaller`."""

    def __init__(self, asked: Dispatcher) -> None:
        self._dispatcher = asked

    def host(
        self,
        name: str,
        /,
        *,
        queue: dict[str, Any] | None = None,
        concurrency: int | None = None,
        timeout: float | None = None,
        max_exec_time: float | None = None,
        info: Any = None,
        idempotency_key: str | None = None,
        dedup: dict[str, Any] | None = None,
        on_behalf_of: str | None = None,
    ) -> H:
        """Return the host of that name; nothing is sent yet.

        The options hold for every call made through what is returned. They are read now: what
        happens to ``queue`` or ``info`` later has no effect.

        :param name: its name in the hosts registry.
        :param queue: the name of the queue that the jobs wait in, any dict that JSON can carry.
        :param concurrency: how many jobs of the queue may run at once (1 if nothing is said). It
            counts for the call that creates the queue.
        :param timeout: the longest silence between two messages of the job, in seconds.
        :param max_exec_time: the longest run, in seconds. Neither counts time spent in a queue.
        :param info: anything that JSON can carry; it is kept with the job and not looked into.
        :param idempotency_key: 1 to 200 characters that name what is to be done once, such as the
            id of a web request that may be sent again: a second call with this key, in this process
            or another, starts nothing and gives the first one's job. Without it each call has a key
            of its own, so that the library can send it again when the connection broke.
        :param dedup: ``{"key": {…}, "within": seconds}``: if a job with this key, any dict that
            JSON can carry, was submitted less than so many seconds ago, that job is given instead
            of a new one, and its `RemoteCall.is_duplicate` is True.
        :param on_behalf_of: 1 to 200 characters that name the person for whom this program acts. It
            is recorded with the jobs, and goes with all that is asked of them through what a call
            returns. The dispatcher takes it from users that it trusts.
        :raises TypeError: if there is no such option, one has a wrong type, or JSON can't carry it.
        :raises ValueError: if an option has a wrong value, or ``concurrency`` comes without
            ``queue``.
        """
        checks.text("name", name)
        options = calls.call_options(
            queue, concurrency, timeout, max_exec_time, info, idempotency_key, dedup
        )
        return self._host(self._asked_for(on_behalf_of), name, options)

    __call__ = host

    def __getattr__(self, name: str) -> H:
        checks.public(self, name)
        return self.host(name)

    def job(self, job_id: str, *, on_behalf_of: str | None = None) -> J:
        """Return the job of that id without asking the dispatcher whether there is one.

        :param job_id: what `RemoteCall.id` returned, in this process or another.
        :param on_behalf_of: 1 to 200 characters that name the person for whom this program acts; it
            goes with all that is asked of the job.
        :raises TypeError: if one of them is not a str.
        :raises ValueError: if ``on_behalf_of`` is too short or too long.
        """
        return self._job(self._asked_for(on_behalf_of), checks.text("job_id", job_id))

    def close(self) -> None:
        """Close the connections that are kept for further requests.

        Those of jobs that are being waited for or followed stay; a later request opens a new one.
        """
        self._dispatcher.close()

    def _asked_for(self, person: str | None) -> Dispatcher:
        if person is None:
            return self._dispatcher
        return self._dispatcher.on_behalf_of(access.person("on_behalf_of", person))

    def _host(self, asked: Dispatcher, name: str, options: calls.CallOptions) -> H:
        raise NotImplementedError

    def _job(self, asked: Dispatcher, job_id: str) -> J:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<harp.HarpCaller {self._dispatcher.address}>"


class Host(Generic[J]):
    """The core of `harp.RemoteServer`."""

    def __init__(self, asked: Dispatcher, name: str, options: calls.CallOptions) -> None:
        self._dispatcher = asked
        self._name = name
        self._options = options

    async def _submit(self, procedure: str, /, *args: object, **kwargs: object) -> J:
        request = calls.call_request(self._name, procedure, args, kwargs, self._options)
        reply = outcomes.answer(await self._dispatcher.ask(request), dispatcher.JobId)
        return self._job(reply)

    def _job(self, reply: dispatcher.JobId) -> J:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<harp.RemoteServer {self._name!r} by {self._dispatcher.address}>"
