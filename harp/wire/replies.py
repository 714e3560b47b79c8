"""What harpd says, or the process of a call to it: bytes in, replies out.

The order in which replies may come is told in ``harp.session``.
"""

from __future__ import annotations

from harp import errors
from harp.errors import RemoteProtocolError
from harp.wire import harpd
from harp.wire.lines import ENVELOPE_ROOM, MAX_REPLY, LineReader, LineTooLongError
from harp.wire.packets import Packets, decode_packets


def next_line(lines: LineReader) -> bytes | None:
    """Return the next line of a reply, None while more is needed.

    :raises RemoteProtocolError: if it is over the limit.
    """
    try:
        return lines.next_line()
    except LineTooLongError as error:
        raise RemoteProtocolError(errors.PROTOCOL_ERROR, f"in a reply, {error}") from error


class ReplyReader:
    """Reads replies of harpd's protocol; packets that arrive together are one reply.

    :param max_reply: the longest payload in bytes.
    """

    def __init__(self, max_reply: int = MAX_REPLY) -> None:
        self._lines = LineReader(max_reply + ENVELOPE_ROOM)
        self._is_new = False  # what was fed has not been looked at as a whole

    @property
    def has_more(self) -> bool:
        """Whether anything has arrived behind the last reply taken."""
        return self._lines.has_more

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        self._lines.feed(data)
        self._is_new = True

    def next(self) -> harpd.Reply | None:
        """Return the next reply, None while more is needed.

        :raises RemoteProtocolError: if there is a line that is none, or over the limit.
        """
        if self._is_new and (packets := self._packets()) is not None:
            return packets
        line = next_line(self._lines)
        return None if line is None else harpd.decode_reply_line(line)

    def _packets(self) -> Packets | None:
        """Return the packets that come next, if nothing is between them."""
        lines = self._lines.lines
        if not lines.startswith(b'{"stream":'):
            return None  # an acknowledgement comes first
        self._is_new = False  # if it does not go at once, each line is looked at
        last = lines.rfind(b'\n{"stream":') + 1
        end = lines.index(b"\n", last) + 1
        packets = decode_packets(lines[:end])
        if packets is not None:
            self._lines.take(end)
        return packets
