"""What a connection that has been made tells of its peer."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.interfaces import IUNIXTransport
from twisted.protocols.tls import TLSMemoryBIOProtocol

from harpcaller.client_tls import ClientConnection
from harpcaller.identities import NOTHING, Proof

_CREDENTIALS = struct.Struct("iII")  # struct ucred of unix(7): pid, uid, gid


def proof_of(transport: Any) -> Proof:
    """Return what a transport tells; that of TLS can be asked when its handshake is complete."""
    if isinstance(transport, TLSMemoryBIOProtocol):
        connection = transport.getHandle()
        # TLS of somebody else's, as an endpoint of a plug-in makes it, has verified nothing for us.
        is_ours = isinstance(connection, ClientConnection)
        return Proof(certificate=connection.certificate) if is_ours else NOTHING
    if IUNIXTransport.providedBy(transport):
        peer: Any = transport
        found = peer.getHandle().getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
        return Proof(uid=_CREDENTIALS.unpack(found)[1])
    return NOTHING
