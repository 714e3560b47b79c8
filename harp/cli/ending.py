"""The end of a job, printed."""

from __future__ import annotations

from harp import CALL_CANCELLED, CancelledException, HarpException, RemoteCall
from harp.cli.output import Output
from harp.cli.status import failure


def show(output: Output, job: RemoteCall) -> None:
    """Wait for a job's end and print its result.

    :raises Failure: if it has none.
    """
    result = job.result(wait=True)
    if result is CALL_CANCELLED:
        result = CancelledException()
    if isinstance(result, HarpException):
        raise failure(result, job.id())
    output.value({"job": job.id(), "result": result} if output.as_json else result)
