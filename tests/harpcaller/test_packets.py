"""Tests of ``harpcaller.packets``."""

from twisted.trial.unittest import SynchronousTestCase

from tests.harpcaller.packets import recorded


class RecordedTests(SynchronousTestCase):
    """What clients get of packets that were recorded together."""

    def test_lines(self) -> None:
        """From any packet on, with and without the time; the numbers are those of the stream."""
        packets = recorded(3, b"1", b"[]", b'"a"', at=2.5)
        self.assertEqual(packets.end, 6)
        lines = [b'{"packet":3,"data":1', b'{"packet":4,"data":[]', b'{"packet":5,"data":"a"']
        for since in range(6):
            wanted = lines[max(0, since - 3) :]
            for detail, end in ((False, b"}\n"), (True, b',"time":2.5}\n')):
                expected = b"".join(line + end for line in wanted)
                self.assertEqual(packets.lines(since, detail), expected)

    def test_written_once(self) -> None:
        """Those who follow share the bytes."""
        packets = recorded(3, b"1", b"[]")
        for detail in (False, True):
            self.assertIs(packets.lines(3, detail), packets.lines(0, detail))
