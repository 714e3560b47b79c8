"""Packets that travel together: cut out of harpd's lines at once, and kept as one text.

What a single message means is told in ``harp.wire.harpd``; what came together is split only where
each packet needs something of its own, as its number for a client.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

PACKET_COST = 64
"""Bytes that a packet counts beside its own where there is a limit: many short ones take time and
memory too."""

_OPEN, _BETWEEN, _CLOSE = b'{"stream":', b'}\n{"stream":', b"}\n"


class Packets(msgspec.Struct, frozen=True):
    r"""Packets that follow each other.

    :param count: how many.
    :param data: the JSON of each, joined by ``\n``, which none of them has: each came on one line.
    """

    count: int
    data: bytes

    @property
    def texts(self) -> list[bytes]:
        """The JSON of each packet."""
        return self.data.split(b"\n") if self.count else []

    @property
    def cost(self) -> int:
        """What they count where there is a limit, in bytes."""
        return len(self.data) + PACKET_COST * self.count


def pack(texts: Sequence[bytes]) -> Packets:
    """Return packets, given the JSON of each."""
    return Packets(len(texts), b"\n".join(texts))


def join(batches: Sequence[Packets]) -> Packets:
    """Return the packets of several batches as one; none of them may be empty."""
    if len(batches) == 1:
        return batches[0]
    return Packets(
        sum(batch.count for batch in batches), b"\n".join(batch.data for batch in batches)
    )


def portions(packets: Packets, most: int) -> Iterator[Packets]:
    """Cut into portions that cost no more than so much each, or are one packet."""
    if packets.cost <= most:
        yield packets
        return
    portion: list[bytes] = []
    cost = 0
    for text in packets.texts:
        size = len(text) + 1 + PACKET_COST
        if portion and cost + size > most:
            yield pack(portion)
            portion, cost = [], 0
        portion.append(text)
        cost += size
    yield pack(portion)


def encode_packets(packets: Packets) -> bytes:
    """Return the lines of harpd's protocol, one for each packet."""
    return _OPEN + packets.data.replace(b"\n", _BETWEEN) + _CLOSE


def decode_packets(lines: bytes) -> Packets | None:
    r"""Decode lines of harpd's protocol that are all packets, in one pass.

    :param lines: whole lines, each with its ``\n``.
    :return: None if they are anything else, or packets written in another way: then each line has
        to be looked at.
    """
    if not (lines.startswith(_OPEN) and lines.endswith(_CLOSE)):
        return None
    texts = lines[len(_OPEN) : -len(_CLOSE)].split(_BETWEEN)
    if len(texts) != lines.count(b"\n"):
        return None
    # Each line is framed as a packet. What is between is one value each, as the elements of the
    # list are, if and only if these are what is between: `1,2` in a line would be two elements,
    # nothing none.
    try:
        lines.decode()  # msgspec does not look into what it skips
        values = _list_decoder.decode(b"[%b]" % b",".join(texts))
    except (UnicodeDecodeError, RecursionError, msgspec.DecodeError):
        return None
    packets = pack(texts)
    is_same = len(values) == packets.count and b"\n".join(values) == packets.data
    return packets if is_same else None


def encode_numbered(first: int, texts: Sequence[bytes], time: bytes | None = None) -> bytes:
    """Return the lines of packets for a client of the dispatcher.

    :param first: the number of the first packet.
    :param time: JSON, an extension: when they were recorded.
    """
    if time is None:
        lines = [b'{"packet":%d,"data":%b}\n' % packet for packet in enumerate(texts, first)]
    else:
        lines = [
            b'{"packet":%d,"data":%b,"time":%b}\n' % (number, data, time)
            for number, data in enumerate(texts, first)
        ]
    return b"".join(lines)


_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])
