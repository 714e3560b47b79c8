"""A job's packets as Server-Sent Events."""

import json
from collections.abc import Iterator

import harp

PULSE = 10
"""Seconds of silence after which something is written; it fails where a browser has left."""


def events(job: harp.RemoteCall, since: int) -> Iterator[str]:
    """Yield the packets from that number on as they come, and an event when the job has ended."""
    yield "retry: 1000\n\n"
    try:
        with job.follow(since=since, numbered=True, pulse=PULSE) as packets:
            for item in packets:
                if item is harp.CALL_NOT_FINISHED:
                    yield ": nothing new\n\n"  # the server fails to send it if nobody is there
                else:
                    number, packet = item
                    yield f"id: {number}\ndata: {json.dumps(packet)}\n\n"
    except harp.CommunicationError:
        return  # the browser connects again, and says which packet was its last
    yield "event: end\ndata: {}\n\n"
