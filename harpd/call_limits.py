"""The limits of a call as the network-facing process holds to them, whatever its process does.

The process keeps to those of its output itself (`harpd.report`), but it runs the operator's code.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass

from harp import errors
from harp.wire import harpd, results
from harp.wire.packets import Packets, pack
from harp.wire.results import EndKind, EndResult


@dataclass(frozen=True)
class CallLimits:
    """Those that harpd has to know of.

    :param max_packet: the bytes of JSON of one packet, None for no limit.
    :param max_output: the bytes of JSON of all packets and the end result, None for no limit.
    :param cpu: the seconds of processor time that the kernel lets a process have.
    """

    max_packet: int | None = None
    max_output: int | None = None
    cpu: int | None = None

    def killed(self, status: int) -> EndResult:
        """Return what it means that the process of a call ended without an end result.

        :param status: as wait(2) gives it.
        """
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            how, data = f"ended with exit status {code}", {"exit_status": code}
        elif -code == signal.SIGXCPU and self.cpu is not None:
            text = f"the limit cpu of {self.cpu} s was exceeded"
            return results.error(errors.LIMIT_EXCEEDED, text, {"limit": "cpu"})
        else:
            how, data = f"was killed by signal {-code}", {"signal": -code}
        text = f"the process of the call {how} without a result"
        if -code == signal.SIGKILL and self.cpu is not None:
            text += f" (as one is that goes on beyond the limit cpu of {self.cpu} s)"
        return results.error(errors.KILLED, text, data)


NO_LIMITS = CallLimits()


class OutputMeter:
    """Counts what one call reports."""

    def __init__(self, limits: CallLimits) -> None:
        self._limits = limits
        self._total = 0

    def within(self, reply: harpd.Reply) -> Iterable[harpd.Reply]:
        """Return what may pass of a reply, and behind that an error if it is not all of it."""
        if isinstance(reply, Packets):
            return self._packets(reply)
        if isinstance(reply, EndResult) and reply.kind is not EndKind.ERROR:
            return [self._over("end result", len(reply.value)) or reply]
        return [reply]

    def _packets(self, packets: Packets) -> Iterable[harpd.Reply]:
        texts = packets.texts
        for number, text in enumerate(texts):
            error = self._too_long(text) or self._over("packet", len(text))
            if error is not None:
                return [pack(texts[:number]), error] if number else [error]
        return [packets]

    def _too_long(self, text: bytes) -> EndResult | None:
        limit = self._limits.max_packet
        if limit is None or len(text) <= limit:
            return None
        message = f"the packet has {len(text)} bytes, over the limit max_packet of {limit}"
        return results.error(errors.LIMIT_EXCEEDED, message, {"limit": "max_packet"})

    def _over(self, what: str, size: int) -> EndResult | None:
        limit = self._limits.max_output
        self._total += size
        if limit is None or self._total <= limit:
            return None
        message = f"with the {what} the output has {self._total} bytes, over the limit max_output"
        message = f"{message} of {limit}"
        return results.error(errors.LIMIT_EXCEEDED, message, {"limit": "max_output"})
