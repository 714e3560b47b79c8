"""A job, whichever way the program waits for what the dispatcher says of it.

Each request is a coroutine, of which ``harp.blocking`` and ``harp.deferred`` make their methods.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from harp import calls, outcomes
from harp.dispatchers import Dispatcher
from harp.errors import RemoteError
from harp.wire import dispatcher

I = TypeVar("I")  # noqa: E741


class Job(Generic[I]):
    """The core of `harp.RemoteCall`."""

    def __init__(self, asked: Dispatcher, job_id: str, duplicate: bool = False) -> None:
        self._dispatcher = asked
        self._id = job_id
        self._duplicate = duplicate
        self._last_status: dispatcher.Status | None = None

    def id(self) -> str:
        """Return the job id, a UUID."""
        return self._id

    def is_duplicate(self) -> bool:
        """Return whether the call that gave this object found an earlier call's job (``dedup``)."""
        return self._duplicate

    async def _result(self, wait: bool = False) -> Any:
        """Return what became of the job; its failure is returned, not raised.

        :param wait: whether to wait for the job's end, however long it takes.
        :return: the value that the procedure returned, a `harp.RemoteException` if it raised, a
            `harp.RemoteError` if the call could not be carried out, there is no such job, or the
            dispatcher does not let the caller know,
            ``CALL_CANCELLED`` if it was cancelled, ``CALL_NOT_FINISHED`` if it has not ended.
        :raises CommunicationError: if the dispatcher can't be asked.
        """
        request = dispatcher.GetResult(harpcaller=1, get_result=self._id, wait=wait)
        try:
            reply = await self._dispatcher.ask(request, patient=wait)
        except RemoteError as refusal:
            return refusal
        with self._dispatcher.address.blamed():
            return outcomes.outcome(reply)

    async def _get(self, wait: bool = True) -> Any:
        """Return what the procedure returned; the job's failure is raised.

        :param wait: whether to wait for the job's end, however long it takes.
        :return: the value, or ``CALL_NOT_FINISHED`` if the job has not ended.
        :raises RemoteException: if the procedure raised.
        :raises RemoteError: if the call could not be carried out, there is no such job, or the
            dispatcher does not let the caller know.
        :raises CancelledException: if the job was cancelled.
        :raises CommunicationError: if the dispatcher can't be asked.
        """
        return outcomes.value_of(await self._result(wait), self._id)

    def stream(
        self, since: int | None = None, recent: int | None = None, numbered: bool = False
    ) -> I:
        """Return the packets recorded so far, all of them if nothing else is said.

        :param since: the number of the first packet wanted; they count from 0.
        :param recent: how many of the last packets are wanted.
        :param numbered: whether to yield ``(number, packet)`` instead of packets.
        :raises TypeError: if a number is not a whole one.
        :raises ValueError: if a number is negative, or both are given.
        """
        start = calls.stream_start(since, recent)
        request = dispatcher.ReadStream(harpcaller=1, read_stream=self._id, **start)
        return self._packets(request, numbered, patient=False)

    def follow(
        self, since: int | None = None, recent: int | None = None, numbered: bool = False
    ) -> I:
        """Return the packets until the job ends, only new ones if nothing else is said.

        :param since: the number of the first packet wanted; they count from 0.
        :param recent: how many of the packets recorded so far are wanted before the new ones.
        :param numbered: whether to yield ``(number, packet)`` instead of packets.
        :raises TypeError: if a number is not a whole one.
        :raises ValueError: if a number is negative, or both are given.
        """
        start = calls.stream_start(since, recent)
        request = dispatcher.FollowStream(harpcaller=1, follow_stream=self._id, **start)
        return self._packets(request, numbered, patient=True)

    def _packets(self, request: dispatcher.StreamRequest, numbered: bool, patient: bool) -> I:
        raise NotImplementedError

    async def _cancel(self) -> bool:
        """Cancel the job and return whether there was anything to cancel."""
        request = dispatcher.Cancel(harpcaller=1, cancel=self._id)
        reply = await self._dispatcher.ask(request)
        return outcomes.answer(reply, dispatcher.CancelOutcome).cancelled

    async def _host(self) -> str:
        """Return the name of the host."""
        return (await self._status()).call.host

    async def _procedure(self) -> str:
        """Return the name of the procedure."""
        return (await self._status()).call.procedure

    async def _args(self) -> Any:
        """Return the arguments: a list of positional or a dict of keyword arguments.

        In the place of secret ones stands ``"(secret)"``.
        """
        arguments = (await self._status()).call.arguments
        with self._dispatcher.address.blamed():
            return outcomes.decode_payload(arguments)

    async def _info(self) -> Any:
        """Return what the call gave as ``info``, None if nothing."""
        info = (await self._status()).info
        with self._dispatcher.address.blamed():
            return outcomes.decode_payload(info)

    async def _submit_time(self) -> int:
        """Return when the job was submitted."""
        return (await self._status()).time.submit

    async def _start_time(self) -> int | None:
        """Return when the job was started, None if it waits or never was."""
        return (await self._status("start")).time.start

    async def _end_time(self) -> int | None:
        """Return when the job ended, None if it has not."""
        return (await self._status("end")).time.end

    async def _detail(self) -> dict[str, Any]:
        """Return what else the dispatcher knows of the job at this moment.

        :return: ``state`` (``waiting``, ``running``, ``ended``); ``waits_for``, what a waiting job
            waits for (``queue``, ``host``, ``dispatcher``); ``waits_for_lock``, the lock that a
            running one waits for; ``time`` with ``submit``, ``start``, ``end`` in unix seconds with
            their fraction; ``timeout`` and ``max_exec_time`` in seconds; ``caller``, the address
            from which it was submitted; ``submitter``, the user who did so, and ``on_behalf_of``,
            for whom; ``packets``, how many are recorded; ``queue`` with
            ``name``, ``concurrency`` and ``position``, how many jobs come before it. None stands
            where there is nothing to say.
        :raises UnsupportedError: if the dispatcher can't tell.
        """
        request = dispatcher.GetStatus(harpcaller=1, get_status=self._id, detail=True)
        status = outcomes.answer(await self._dispatcher.ask(request), dispatcher.Status)
        with self._dispatcher.address.blamed():
            return outcomes.plain(status.detail)  # type: ignore[no-any-return]

    async def _status(
        self, time: Literal["submit", "start", "end"] = "submit"
    ) -> dispatcher.Status:
        # A time that is None may still come, but nothing changes after the end.
        known = self._last_status
        if known is None or (known.time.end is None and getattr(known.time, time) is None):
            request = dispatcher.GetStatus(harpcaller=1, get_status=self._id)
            known = outcomes.answer(await self._dispatcher.ask(request), dispatcher.Status)
            self._last_status = known
        return known

    def __repr__(self) -> str:
        return f"<harp.RemoteCall {self._id} by {self._dispatcher.address}>"
