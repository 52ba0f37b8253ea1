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
from tests.support.mesh_samples import placement

from meshwise.mesh.identity import (
    CertificateAuthority,
    CertificateForm,
    IdentityFiles,
    key_name,
    make_key,
    serial_of,
    spiffe_ids,
    store,
)
from meshwise.mesh.istio.workloads import WorkloadIdentities
from meshwise.mesh.protection.credentials import DIRECTORY
from meshwise.study.model import KeyType
from meshwise.study.timeline import RenewalFault

NOW = dt.datetime(2026, 5, 4, 12, 0, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority(now=lambda: NOW)


@pytest.mark.parametrize(
    ("key_type", "kind"),
    [
        (KeyType.RSA_2048, rsa.RSAPublicKey),
        (KeyType.ECDSA_P256, ec.EllipticCurvePublicKey),
        (KeyType.ECDSA_P384, ec.EllipticCurvePublicKey),
    ],
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


@pytest.fixture(scope="module")
def quick() -> CertificateAuthority:
    return CertificateAuthority(now=lambda: NOW, key_type=KeyType.ECDSA_P256)


@pytest.mark.parametrize("key_type", KeyType)
def test_a_key_says_its_type(key_type: KeyType, quick: CertificateAuthority) -> None:
    leaf = x509.load_pem_x509_certificates(quick.issue("a", "b", make_key(key_type)).chain)[0]
    assert key_name(leaf) == key_type


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_chain_is_as_deep_as_it_is_asked_to_be(depth: int, quick: CertificateAuthority) -> None:
    key = make_key(KeyType.ECDSA_P256)
    chain = x509.load_pem_x509_certificates(quick.issue("a", "b", key, depth=depth).chain)
    again = x509.load_pem_x509_certificates(quick.issue("c", "d", key, depth=depth).chain)
    (root,) = x509.load_pem_x509_certificates(quick.root_pem)
    assert len(chain) == depth + 1
    assert chain[1:] == again[1:]
    for below, above in zip(chain, [*chain[1:], root], strict=True):
        below.verify_directly_issued_by(above)
    lengths = [each.extensions.get_extension_for_class(x509.BasicConstraints).value for each in chain[1:]]
    assert [each.path_length for each in lengths] == list(range(depth))
    verifier = verification.PolicyBuilder().store(verification.Store([root])).time(NOW)
    verifier.build_client_verifier().verify(chain[0], chain[1:])


@pytest.mark.parametrize(("depth", "entries"), [(1, 1), (1, 500), (3, 500)])
def test_every_authority_of_a_chain_lists_what_it_revoked(
    depth: int, entries: int, quick: CertificateAuthority
) -> None:
    key = make_key(KeyType.ECDSA_P256)
    revoked = quick.issue("a", "b", key, serial=quick.revoked_serial)
    assert x509.load_pem_x509_certificates(revoked.chain)[0].serial_number == quick.revoked_serial
    chain = x509.load_pem_x509_certificates(quick.issue("a", "b", key, depth=depth).chain)
    (root,) = x509.load_pem_x509_certificates(quick.root_pem)
    pem = quick.revoked_pem(depth, entries)
    assert pem == quick.revoked_pem(depth, entries), "the same, whichever proxy is given it"
    end = b"-----END X509 CRL-----\n"
    lists = {
        found.issuer: found for part in pem.split(end)[:-1] if (found := x509.load_pem_x509_crl(part + end))
    }
    outsiders = x509.load_pem_x509_certificates(revoked.chain)[1]
    assert set(lists) == {each.subject for each in (*chain[1:], root, outsiders)}
    for authority in (*chain[1:], root, outsiders):
        assert lists[authority.subject].is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    assert len(lists[chain[1].subject]) == entries
    named = lists[outsiders.subject].get_revoked_certificate_by_serial_number(quick.revoked_serial)
    assert named is not None


def test_a_short_life_is_a_short_life(quick: CertificateAuthority) -> None:
    identity = quick.issue("a", "b", make_key(KeyType.ECDSA_P256), life=dt.timedelta(seconds=30))
    leaf = x509.load_pem_x509_certificates(identity.chain)[0]
    assert leaf.not_valid_after_utc == NOW + dt.timedelta(seconds=30)


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


def test_a_workload_has_certificates_of_the_form_that_its_cell_asks_for(tmp_path: Path) -> None:
    here, identities = placement(2, tmp_path), WorkloadIdentities()
    day = CertificateForm(KeyType.ECDSA_P256)
    short = CertificateForm(KeyType.ECDSA_P256, depth=2, revoked=3, life=dt.timedelta(minutes=1))
    identities.issue_all(here, day, None)
    identities.forget(here, day, None)
    assert identities.current(here, "node-1", day).chain.name == "ecdsa-p256.chain.pem"
    identities.forget(here, short, None)
    first = identities.current(here, "node-1", short)
    identities.forget(here, short, None)
    second = identities.current(here, "node-1", short)
    assert first.chain.name.startswith("ecdsa-p256-depth2-crl3-valid60s-")
    assert second.chain != first.chain, "what lives shortly is fresh in each trial, under another name"
    for files in (first, second):
        assert files.crl is not None
        assert files.crl.read_bytes().count(b"BEGIN X509 CRL") == 4
        assert len(x509.load_pem_x509_certificates(files.chain.read_bytes())) == 3
    twin = x509.load_pem_x509_certificates((tmp_path / DIRECTORY / "twin.chain.pem").read_bytes())
    assert len(twin) == 3, "the client's twin shows what its sidecar would"


def test_lists_hold_for_certificates_of_before_and_after_a_rotation(quick: CertificateAuthority) -> None:
    key = make_key(KeyType.ECDSA_P256)
    before = x509.load_pem_x509_certificates(quick.issue("a", "b", key, depth=2).chain)
    rotated = quick.with_issuer(make_key(KeyType.ECDSA_P256))
    after = x509.load_pem_x509_certificates(rotated.issue("a", "b", key, depth=2).chain)
    assert before[1] != after[1]
    assert before[2] == after[2], "of a deeper chain the others stay"
    after[0].verify_directly_issued_by(after[1])
    end = b"-----END X509 CRL-----\n"
    parts = rotated.revoked_pem(2, 5).split(end)[:-1]
    lists = [x509.load_pem_x509_crl(part + end) for part in parts]
    for authority in (before[1], after[1], after[2]):
        assert any(each.is_signature_valid(authority.public_key()) for each in lists)  # type: ignore[arg-type]


# --- within a trial ---------------------------------------------------------------------------------


def leaf_and_issuer(files: IdentityFiles) -> tuple[x509.Certificate, x509.Certificate]:
    leaf, issuer, *_ = x509.load_pem_x509_certificates(files.chain.read_bytes())
    return leaf, issuer


def test_within_a_trial_one_process_set_gets_new_certificates_and_forgets_them(tmp_path: Path) -> None:
    form, identities = CertificateForm(KeyType.ECDSA_P256), WorkloadIdentities(spare_keys=3)
    here = placement(1, tmp_path)
    identities.issue_all(here, form, None)
    first, root = identities.current(here, "node-1", form), identities.root_pem(here)

    renewed = identities.renew(here, "node-1", form, None)
    assert serial_of(renewed) != serial_of(first)
    assert leaf_and_issuer(renewed)[1] == leaf_and_issuer(first)[1]
    assert renewed.key.read_bytes() == first.key.read_bytes(), "keys stay"

    identities.new_issuer(here)
    leaf, issuer = leaf_and_issuer(identities.renew(here, "node-1", form, None))
    assert issuer != leaf_and_issuer(first)[1]
    assert identities.root_pem(here) == root
    leaf.verify_directly_issued_by(issuer)

    identities.new_anchor(here)
    other = identities.root_pem(here)
    assert other != root
    both = identities.trust(here, "node-1", form, None, root + other)
    assert both.root.read_bytes() == root + other
    assert leaf_and_issuer(both)[0] == leaf, "whom it trusts changes first, what it shows later"
    assert identities.renew(here, "node-1", form, None).root.read_bytes() == other

    identities.forget(here, form, None)
    assert identities.current(here, "node-1", form) == first
    assert identities.root_pem(here) == root


@pytest.mark.parametrize(("how", "words"), [("refused", "refused to sign"), ("gone", "cannot be reached")])
def test_an_authority_that_fails_says_how_as_long_as_it_does(how: str, words: str, tmp_path: Path) -> None:
    identities, here = WorkloadIdentities(), placement(1, tmp_path)
    with identities.failing(here, RenewalFault(how)):
        assert words in identities.wait_for_authority(here)
    assert identities.wait_for_authority(here) == ""


def test_what_a_wrong_clock_signs_is_valid_in_its_time_only(tmp_path: Path) -> None:
    form, identities, here = CertificateForm(KeyType.ECDSA_P256), WorkloadIdentities(), placement(1, tmp_path)
    identities.issue_all(here, form, None)
    with identities.skewed(here, 3600 * 10**9):
        ahead, _ = leaf_and_issuer(identities.renew(here, "node-1", form, None))
    right, _ = leaf_and_issuer(identities.renew(here, "node-1", form, None))
    late = ahead.not_valid_before_utc - right.not_valid_before_utc
    assert dt.timedelta(minutes=59) < late <= dt.timedelta(hours=1, seconds=1)
