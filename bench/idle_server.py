"""A server of bare Twisted that does nothing: what the limit of memory is measured with."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.protocol import Factory, Protocol


def main() -> None:
    """Say on which port it is and accept connections."""
    reactor: Any = installed
    factory = Factory.forProtocol(Protocol)
    listening = reactor.listenTCP(0, factory, backlog=4096, interface="127.0.0.1")
    print(listening.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main()
