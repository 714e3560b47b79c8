"""Tests of ``harpcaller.config`` and files of hosts, with files that are nearly right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz import files
from tests.fuzz.samples import HARPCALLER, HOSTS, HOSTS_LINES
from tests.fuzz.strategies import edited, examples, mutated_yaml


class ConfigTests(SynchronousTestCase):
    """What is wrong is a mistake that names it, and nothing else happens."""

    def test_samples(self) -> None:
        """The samples that are changed below are right themselves."""
        (files.folder() / "hosts.yaml").write_text(HOSTS[0])
        for sample in HARPCALLER:
            self.assertEqual(files.harpcaller_config(sample.encode()), [])
        for sample in HOSTS:
            self.assertEqual(files.hosts_yaml(sample.encode()), [])
        self.assertEqual(files.hosts_lines(b"\n".join(HOSTS_LINES)), [])

    @examples(200)
    @given(mutated_yaml(HARPCALLER))
    def test_configuration(self, data: bytes) -> None:
        """A configuration is read, or every mistake is told."""
        files.harpcaller_config(data)

    @examples(100)
    @given(edited([sample.encode() for sample in HARPCALLER]) | st.binary())
    def test_bytes(self, data: bytes) -> None:
        """So it is where it is no YAML."""
        files.harpcaller_config(data)

    @examples(200)
    @given(mutated_yaml(HOSTS))
    def test_hosts(self, data: bytes) -> None:
        """So it is with the hosts; no password is told."""
        self.assertNotIn(files.SECRET, "".join(files.hosts_file(data)))

    @examples(200)
    @given(edited([*HOSTS_LINES, *(sample.encode() for sample in HOSTS)]) | st.binary())
    def test_lines_of_hosts(self, data: bytes) -> None:
        """So it is with lines of JSON."""
        files.hosts_file(data)
