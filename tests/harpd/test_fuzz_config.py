"""Tests of ``harpd.config`` with configurations and password files that are nearly right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz import files
from tests.fuzz.samples import HARPD
from tests.fuzz.strategies import edited, examples, mutated_yaml
from tests.fuzz.targets import samples
from tests.harpd.test_passwords import SHA512


class ConfigTests(SynchronousTestCase):
    """What is wrong is a mistake that names it, and nothing else happens."""

    def test_samples(self) -> None:
        """The samples that are changed below are right themselves."""
        (files.folder() / "passwd").write_text(f"panel:{SHA512}\n")
        for sample in HARPD:
            self.assertEqual(files.harpd_config(sample.encode()), [])

    @examples(200)
    @given(mutated_yaml(HARPD))
    def test_configuration(self, data: bytes) -> None:
        """A configuration is read, or every mistake is told, without passwords."""
        self.assertNotIn(files.SECRET, "".join(files.harpd_config(data)))

    @examples(100)
    @given(edited([sample.encode() for sample in HARPD]) | st.binary())
    def test_bytes(self, data: bytes) -> None:
        """So it is where it is no YAML."""
        files.harpd_config(data)

    @examples(100)
    @given(edited(samples("passfile")) | st.binary())
    def test_password_file(self, data: bytes) -> None:
        """So it is with a password file."""
        files.passfile(data)
