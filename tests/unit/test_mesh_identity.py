"""Certificates as Istio issues them, read back by the library and by OpenSSL; keys where they belong."""

from __future__ import annotations

import datetime as dt
import logging
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import verification

from meshwise.mesh.identity import CertificateAuthority, make_key, spiffe_ids, store
from meshwise.study.model import KeyType

NOW = dt.datetime(2026, 5, 4, 12, 0, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority(now=lambda: NOW)


@pytest.mark.parametrize(
    ("key_type", "kind"),
    [(KeyType.RSA_2048, rsa.RSAPublicKey), (KeyType.ECDSA_P256, ec.EllipticCurvePublicKey)],
)
def test_a_leaf_is_what_istio_issues(authority: CertificateAuthority, key_type: KeyType, kind: type) -> None:
    identity = authority.issue("frontend", "client", make_key(key_type))
    leaf, intermediate = x509.load_pem_x509_certificates(identity.chain)
    (root,) = x509.load_pem_x509_certificates(authority.root_pem)
    assert isinstance(leaf.public_key(), kind)
    assert spiffe_ids(leaf) == ("spiffe://cluster.local/ns/frontend/sa/client",) == (identity.spiffe_id,)
    assert list(leaf.subject) == []
    extensions = leaf.extensions
    assert extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    assert leaf.not_valid_before_utc == NOW - dt.timedelta(minutes=2)
    assert leaf.not_valid_after_utc == NOW + dt.timedelta(hours=24)
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_encipherment, usage.key_cert_sign) == (True, True, False)
    both = {x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH}
    assert set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == both
    leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(root)
    assert root.not_valid_after_utc == NOW + dt.timedelta(days=3650)
    assert isinstance(root.public_key(), rsa.RSAPublicKey)


def test_the_chain_verifies_and_a_foreign_one_does_not(authority: CertificateAuthority) -> None:
    def verify(chain: bytes) -> None:
        leaf, *rest = x509.load_pem_x509_certificates(chain)
        roots = verification.Store(x509.load_pem_x509_certificates(authority.root_pem))
        verification.PolicyBuilder().store(roots).time(NOW).build_client_verifier().verify(leaf, rest)

    key = make_key(KeyType.ECDSA_P256)
    verify(authority.issue("a", "b", key).chain)
    with pytest.raises(verification.VerificationError):
        verify(CertificateAuthority(now=lambda: NOW, key_type=KeyType.ECDSA_P256).issue("a", "b", key).chain)


def test_certificates_are_issued_again_for_the_same_key(authority: CertificateAuthority) -> None:
    key = make_key(KeyType.ECDSA_P256)
    first, second = authority.issue("a", "b", key), authority.issue("a", "b", key)
    assert first.key == second.key
    assert first.chain != second.chain


def test_files_are_private_and_usable_by_openssl(tmp_path: Path, authority: CertificateAuthority) -> None:
    files = store(authority.issue("a", "b", make_key(KeyType.RSA_2048)), authority.root_pem, tmp_path, "one")
    for path in (files.chain, files.key, files.root):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    context = ssl.create_default_context(cafile=str(files.root))
    context.load_cert_chain(files.chain, files.key)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.chain.pem", "one.key.pem", "root.pem"]


def test_nothing_is_logged_or_shown(
    authority: CertificateAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    identity = authority.issue("a", "b", make_key(KeyType.ECDSA_P256))
    assert caplog.text == ""
    assert "PRIVATE" not in repr(identity)
