"""The client library of HarpCaller: its public names, nothing else."""

from harp.blocking import HarpCaller, RemoteServer
from harp.blocking_job import RemoteCall
from harp.blocking_stream import StreamIterator
from harp.calls import CALL_CANCELLED, CALL_NOT_FINISHED
from harp.errors import (
    CancelledException,
    CommunicationError,
    HarpException,
    RemoteError,
    RemoteException,
)

__all__ = [
    "CALL_CANCELLED",
    "CALL_NOT_FINISHED",
    "CancelledException",
    "CommunicationError",
    "HarpCaller",
    "HarpException",
    "RemoteCall",
    "RemoteError",
    "RemoteException",
    "RemoteServer",
    "StreamIterator",
]
