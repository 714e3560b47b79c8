"""Backups that people start, watch and cancel; they see and touch their own ones only."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, HTTPException, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

import harp

from . import records
from .login import Person
from .schemas import Backup, Failure, Order, State

HOST = "web01.example.net"

PULSE = 10
"""Seconds after which the thread of a follower who has left is free again."""

router = APIRouter(prefix="/backups")


def dispatcher(request: Request) -> harp.HarpCaller:
    """Return the client of this process."""
    rpc: harp.HarpCaller = request.app.state.rpc
    return rpc


Dispatcher = Annotated[harp.HarpCaller, Depends(dispatcher)]


def own_job(job_id: str, person: Person, rpc: Dispatcher) -> harp.RemoteCall:
    """Return the job of the person's own backup."""
    if not records.is_of(job_id, person):
        raise HTTPException(404, "You have no such backup.")
    return rpc.job(job_id, on_behalf_of=person)


OwnJob = Annotated[harp.RemoteCall, Depends(own_job)]
Key = Annotated[str, Header(alias="Idempotency-Key", min_length=1, max_length=64)]


@router.get("")
def index(person: Person) -> list[Backup]:
    """List the person's backups."""
    return [Backup(job_id=job_id, database=database) for job_id, database in records.of(person)]


@router.post("", status_code=202)
def start(order: Order, key: Key, person: Person, rpc: Dispatcher) -> Backup:
    """Submit the call and record its job; the same key twice makes one job and one record."""
    host = rpc.host(
        HOST,
        queue={"backup": HOST},  # one after the other
        on_behalf_of=person,
        idempotency_key=f"{key} {order.database}",
    )
    job = host.back_up(order.database)
    records.add(job.id(), person, order.database)
    return Backup(job_id=job.id(), database=order.database)


@router.get("/{job_id}")
def detail(job: OwnJob) -> State:
    """Tell what is known of a backup now."""
    result = job.result()
    if result is harp.CALL_NOT_FINISHED:
        return State(state=job.detail()["state"])
    if result is harp.CALL_CANCELLED:
        return State(state="cancelled")
    if isinstance(result, harp.HarpException):
        return State(state="failed", error=Failure.of(result))
    return State(state="done", result=result)


@router.post("/{job_id}/cancel")
def cancel(job: OwnJob) -> bool:
    """Cancel a backup, and tell whether there was anything to cancel."""
    return job.cancel()


@router.get("/{job_id}/events", response_class=EventSourceResponse)
async def follow(
    job: OwnJob, request: Request, last_event_id: Annotated[int, Header(ge=-1)] = -1
) -> AsyncIterator[ServerSentEvent]:
    """Stream a backup's progress, and tell when it has ended."""
    in_thread = partial(to_thread.run_sync, limiter=request.app.state.followers)
    yield ServerSentEvent(retry=1000)
    follow = partial(job.follow, last_event_id + 1, numbered=True, pulse=PULSE)
    try:
        with await in_thread(follow) as packets:
            while (item := await in_thread(next, packets, None)) is not None:
                if item is not harp.CALL_NOT_FINISHED:
                    number, packet = item
                    yield ServerSentEvent(id=str(number), data=packet)
    except harp.CommunicationError:
        return  # the browser connects again, and says which packet was its last
    yield ServerSentEvent(event="end", data={})
