"""Every name is this machine, and its well-known ports are the ones that are free here.

Python loads this at its start where the folder is in PYTHONPATH, so that the programs and commands
of the documentation are run as they stand there. HARP_DOCS_PORTS is a JSON object: which port
stands for which.
"""

import json
import os
import socket

_look_up = socket.getaddrinfo
_ports = json.loads(os.environ.get("HARP_DOCS_PORTS", "{}"))


def _here(host, port, *args, **kwargs):  # type: ignore[no-untyped-def]
    return _look_up("127.0.0.1", _ports.get(str(port), port), *args, **kwargs)


if _ports:
    socket.getaddrinfo = _here
