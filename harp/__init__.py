"""The client library of HarpCaller: its public names, nothing else."""

from harp.blocking import (
    HarpCaller,
    HarpServer,
    HarpStreamIterator,
    Listing,
    RemoteCall,
    RemoteServer,
    StreamIterator,
)
from harp.errors import (
    CancelledException,
    CommunicationError,
    HarpException,
    Origin,
    RemoteError,
    RemoteException,
    UnsupportedError,
)
from harp.outcomes import CALL_CANCELLED, CALL_NOT_FINISHED, Result
from harp.secret import Secret

__all__ = [
    "CALL_CANCELLED",
    "CALL_NOT_FINISHED",
    "CancelledException",
    "CommunicationError",
    "HarpCaller",
    "HarpException",
    "HarpServer",
    "HarpStreamIterator",
    "Listing",
    "Origin",
    "RemoteCall",
    "RemoteError",
    "RemoteException",
    "RemoteServer",
    "Result",
    "Secret",
    "StreamIterator",
    "UnsupportedError",
]
