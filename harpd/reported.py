"""What the process of a call reports, as harpd takes it: checked, and within the limits. No I/O."""

from __future__ import annotations

from harp import errors
from harp.errors import RemoteProtocolError
from harp.wire import harpd, results
from harp.wire.replies import ReplyReader
from harp.wire.results import EndResult
from harpd.call_limits import NO_LIMITS, CallLimits, OutputMeter


class Reported:
    """Takes the bytes of one call's own socket.

    :param limits: of the call, which ends when its output exceeds them.
    :ivar ended: whether the end result has come; nothing is taken behind it.
    :ivar is_refused: whether that was not the process's own end result, so that there is no sense
        in its going on.
    """

    def __init__(self, limits: CallLimits = NO_LIMITS) -> None:
        self.ended = False
        self.is_refused = False
        self._meter = None if limits == NO_LIMITS else OutputMeter(limits)
        self._reader = ReplyReader()

    def feed(self, data: bytes) -> list[harpd.Reply]:
        """Return the replies that are whole now; the last may be the end result."""
        found: list[harpd.Reply] = []
        self._reader.feed(data)
        try:
            while not self.ended and (reply := self._reader.next()) is not None:
                if self._meter is None:
                    found.append(reply)
                else:
                    found += self._meter.within(reply)
                    self.is_refused = found[-1] is not reply
                self.ended = isinstance(found[-1], EndResult)
        except RemoteProtocolError as error:
            self.ended = self.is_refused = True
            text = f"the process of the call wrote no reply: {error}"
            found.append(results.error(errors.INVALID_MESSAGE, text))
        return found
