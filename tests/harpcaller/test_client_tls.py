"""Tests of ``harpcaller.client_tls`` beside those of the way in: what certificates say."""

from __future__ import annotations

import ssl

import trustme
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harpcaller.client_tls import Authorities, names

ISSUED = trustme.CA().issue_cert("A.example.net", "ann@example.net", common_name="Ann")
DER = ssl.PEM_cert_to_DER_cert(ISSUED.cert_chain_pems[0].bytes().decode())


class NameTests(SynchronousTestCase):
    """To whom a certificate is made out."""

    def test_names(self) -> None:
        """Alternative names and the common name count, whatever their case."""
        self.assertEqual(names(DER), {"a.example.net", "ann@example.net", "ann"})

    @given(st.integers(0, len(DER) - 1), st.binary(max_size=9))
    def test_malformed(self, place: int, other: bytes) -> None:
        """What can't be understood has no names, and harms nobody."""
        found = names(DER[:place] + other + DER[place + len(other) :])
        self.assertTrue(all(isinstance(each, str) for each in found))
        self.assertEqual(names(other), frozenset())


class AuthoritiesTests(SynchronousTestCase):
    """Who signs the certificates of clients."""

    def test_equal(self) -> None:
        """They are the same if the certificates are; otherwise names count no more."""
        one, two = (x509.load_pem_x509_certificate(trustme.CA().cert_pem.bytes()) for _ in range(2))
        self.assertEqual(Authorities([one, two]), Authorities([two, one]))
        self.assertEqual(hash(Authorities([one])), hash(Authorities([one])))
        self.assertNotEqual(Authorities([one]), Authorities([two]))
        self.assertNotEqual(Authorities([one]), Authorities([one, two]))
