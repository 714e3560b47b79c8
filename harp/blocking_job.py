"""A job as a program that may block sees it: its result, its packets, its record.

``harp.connection`` moves the bytes, ``harp.calls`` knows what replies become.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from harp import blocking_stream, calls
from harp.connection import Address, ask
from harp.wire import dispatcher


class RemoteCall:
    """A job, as calling a procedure or `HarpCaller.job` returns it.

    Every method but `id` asks the dispatcher, where the answer is not known for good already, and
    raises `CommunicationError` if that fails. All but `result` raise `RemoteError` with type
    ``invalid_jobid`` if there is no such job. Times are whole unix seconds.

    It may be shared by threads, kept over a fork, copied and pickled.
    """

    StreamIterator: TypeAlias = blocking_stream.StreamIterator

    def __init__(self, address: Address, job_id: str) -> None:
        self._address = address
        self._id = job_id
        self._last_status: dispatcher.Status | None = None

    def id(self) -> str:
        """Return the job id, a UUID."""
        return self._id

    def result(self, wait: bool = False) -> Any:
        """Return what became of the job; its failure is returned, not raised.

        :param wait: whether to wait for the job's end, however long it takes.
        :return: the value that the procedure returned, a `RemoteException` if it raised, a
            `RemoteError` if the call could not be carried out or there is no such job,
            ``CALL_CANCELLED`` if it was cancelled, ``CALL_NOT_FINISHED`` if it has not ended.
        :raises CommunicationError: if the dispatcher can't be asked.
        """
        request = dispatcher.GetResult(harpcaller=1, get_result=self._id, wait=wait)
        reply = ask(self._address, request, patient=wait)
        with self._address.blamed():
            return calls.outcome(reply)

    def get(self, wait: bool = True) -> Any:
        """Return what the procedure returned; the job's failure is raised.

        :param wait: whether to wait for the job's end, however long it takes.
        :return: the value, or ``CALL_NOT_FINISHED`` if the job has not ended.
        :raises RemoteException: if the procedure raised.
        :raises RemoteError: if the call could not be carried out, or there is no such job.
        :raises CancelledException: if the job was cancelled.
        :raises CommunicationError: if the dispatcher can't be asked.
        """
        return calls.value_of(self.result(wait), self._id)

    def stream(
        self, since: int | None = None, recent: int | None = None, numbered: bool = False
    ) -> blocking_stream.StreamIterator:
        """Return the packets recorded so far, all of them if nothing else is said.

        :param since: the number of the first packet wanted; they count from 0.
        :param recent: how many of the last packets are wanted.
        :param numbered: whether to yield ``(number, packet)`` instead of packets.
        :raises TypeError: if a number is not a whole one.
        :raises ValueError: if a number is negative, or both are given.
        """
        start = calls.stream_start(since, recent)
        request = dispatcher.ReadStream(harpcaller=1, read_stream=self._id, **start)
        return blocking_stream.StreamIterator(self._address, request, numbered)

    def follow(
        self, since: int | None = None, recent: int | None = None, numbered: bool = False
    ) -> blocking_stream.StreamIterator:
        """Return the packets until the job ends, only new ones if nothing else is said.

        :param since: the number of the first packet wanted; they count from 0.
        :param recent: how many of the packets recorded so far are wanted before the new ones.
        :param numbered: whether to yield ``(number, packet)`` instead of packets.
        :raises TypeError: if a number is not a whole one.
        :raises ValueError: if a number is negative, or both are given.
        """
        start = calls.stream_start(since, recent)
        request = dispatcher.FollowStream(harpcaller=1, follow_stream=self._id, **start)
        return blocking_stream.StreamIterator(self._address, request, numbered)

    def cancel(self) -> bool:
        """Cancel the job and return whether there was anything to cancel."""
        request = dispatcher.Cancel(harpcaller=1, cancel=self._id)
        return calls.answer(ask(self._address, request), dispatcher.CancelOutcome).cancelled

    def host(self) -> str:
        """Return the name of the host."""
        return self._status().call.host

    def procedure(self) -> str:
        """Return the name of the procedure."""
        return self._status().call.procedure

    def args(self) -> Any:
        """Return the arguments: a list of positional or a dict of keyword arguments."""
        arguments = self._status().call.arguments
        with self._address.blamed():
            return calls.decode_payload(arguments)

    def info(self) -> Any:
        """Return what the call gave as ``info``, None if nothing."""
        info = self._status().info
        with self._address.blamed():
            return calls.decode_payload(info)

    def submit_time(self) -> int:
        """Return when the job was submitted."""
        return self._status().time.submit

    def start_time(self) -> int | None:
        """Return when the job was started, None if it waits or never was."""
        return self._status("start").time.start

    def end_time(self) -> int | None:
        """Return when the job ended, None if it has not."""
        return self._status("end").time.end

    def _status(self, time: Literal["submit", "start", "end"] = "submit") -> dispatcher.Status:
        # A time that is None may still come, but nothing changes after the end.
        known = self._last_status
        if known is None or (known.time.end is None and getattr(known.time, time) is None):
            request = dispatcher.GetStatus(harpcaller=1, get_status=self._id)
            known = calls.answer(ask(self._address, request), dispatcher.Status)
            self._last_status = known
        return known

    def __repr__(self) -> str:
        return f"<harp.RemoteCall {self._id} by {self._address}>"
