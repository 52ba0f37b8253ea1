"""Trust anchor, issuer and leaf certificates as Linkerd's identity service makes them.

Rules of this file:
- All keys are ECDSA P-256: a proxy shows its certificate only to peers that verify `ecdsa_secp256r1_sha256`
  (linkerd2-proxy: linkerd/meshtls).
- The trust anchor signs the issuer, the issuer signs leaves; only anchors' certificates are known to
  proxies, only the issuer's key to the controller (linkerd.io: "Automatically Rotating Control Plane TLS").
  An anchor's key stays in the process that made it, for issuers that follow.
- Rotations follow linkerd.io, "Manually Rotating Control Plane TLS Credentials": a new anchor is trusted
  beside the old one first, then an issuer comes from it, then the old one is trusted no more.
- A request is checked before it is signed, and a leaf never outlives its issuer
  (linkerd2: pkg/identity/service.go, pkg/tls/ca.go).
- No key and no certificate is logged or archived.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshwise.mesh.files import write_private
from meshwise.mesh.identity import DEEPEST, Identity, key_usage, sign_authority
from meshwise.mesh.linkerd.names import identity_suffix

ANCHOR_LIFE = dt.timedelta(days=3650)
ISSUER_LIFE = dt.timedelta(days=365)
LEAF_LIFE = dt.timedelta(hours=24)
AGE = dt.timedelta(days=30)
"""Of a cluster's anchor and issuer: one that was made this minute would refuse to sign for a clock that is
behind. What a rotation brings is new on a cluster too."""
CLOCK_SKEW = dt.timedelta(seconds=20)
"""Helm value `identity.issuer.clockSkewAllowance`: widens both ends of a leaf's validity."""

_PEM = serialization.Encoding.PEM
_DER = serialization.Encoding.DER
_SERVER_AND_CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


class CertificateRefused(Exception):
    """A certificate that will not be issued; `status` is the gRPC code's name, the text says why."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Leaf:
    """DER, as the wire wants it. `chain`: the leaf's issuer first."""

    certificate: bytes
    chain: tuple[bytes, ...]
    valid_from: dt.datetime
    valid_until: dt.datetime
    serial: int


@dataclass(frozen=True)
class Issuer:
    """What the identity service holds."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    above: tuple[x509.Certificate, ...] = ()
    """Authorities between it and the anchor, its own first; part of every leaf's chain."""

    @property
    def depth(self) -> int:
        """Certificates of authorities that are sent behind a leaf."""
        return 1 + len(self.above)

    def __repr__(self) -> str:  # the key must not reach a log by way of a repr
        return f"Issuer(valid until {self.certificate.not_valid_after_utc:%Y-%m-%d %H:%M})"

    def certify(
        self,
        identity: str,
        request_der: bytes,
        now: dt.datetime,
        life: dt.timedelta,
        allowance: dt.timedelta = CLOCK_SKEW,
    ) -> Leaf:
        """Check the request and sign it. `allowance`: for others' clocks, at both ends. Raises
        CertificateRefused."""
        key = checked_key(identity, request_der)
        not_before, not_after = now - CLOCK_SKEW, now + life + allowance
        if now > self.certificate.not_valid_after_utc:
            raise CertificateRefused(
                "UNAVAILABLE", f"the issuer's certificate expired at {self.certificate.not_valid_after_utc}"
            )
        if now < self.certificate.not_valid_before_utc:
            raise CertificateRefused(
                "UNAVAILABLE",
                f"the issuer's certificate is not valid before {self.certificate.not_valid_before_utc}",
            )
        not_after = min(not_after, self.certificate.not_valid_after_utc)
        leaf = (
            x509.CertificateBuilder()
            .subject_name(_common_name(identity))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(key_usage("digital_signature", "key_encipherment"), critical=True)
            .add_extension(_SERVER_AND_CLIENT, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(identity)]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        valid_until = min(now + life, not_after)
        chain = tuple(each.public_bytes(_DER) for each in (self.certificate, *self.above))
        return Leaf(leaf.public_bytes(_DER), chain, not_before, valid_until, leaf.serial_number)


@dataclass(frozen=True)
class Anchor:
    """A trust anchor with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"Anchor(serial {self.certificate.serial_number:x})"


@dataclass(frozen=True)
class LinkerdAuthority:
    """An issuer, the anchor that it comes from, and all anchors that proxies are told to trust."""

    anchor: Anchor
    issuer: Issuer
    trusted: tuple[x509.Certificate, ...]

    @property
    def anchor_pem(self) -> bytes:
        """What proxies are started with."""
        return b"".join(each.public_bytes(_PEM) for each in self.trusted)

    def with_issuer(
        self, trust_domain: str, now: dt.datetime | None = None, depth: int | None = None
    ) -> LinkerdAuthority:
        """A new issuer from the same anchor. `depth`: of its chain; None: as that of the one before."""
        moment = now or dt.datetime.now(dt.UTC)
        deep = self.issuer.depth if depth is None else depth
        return replace(self, issuer=make_issuer(self.anchor, trust_domain, moment, ISSUER_LIFE, deep))

    def trusting(self, *anchors: Anchor) -> LinkerdAuthority:
        """Proxies that start from now on trust these."""
        return replace(self, trusted=tuple(each.certificate for each in anchors))

    def under(self, anchor: Anchor, trust_domain: str) -> LinkerdAuthority:
        """With an issuer from this anchor; who is trusted stays."""
        return replace(self, anchor=anchor).with_issuer(trust_domain)


def make_authority(
    trust_domain: str = "cluster.local",
    now: dt.datetime | None = None,
    issuer_life: dt.timedelta = ISSUER_LIFE,
) -> LinkerdAuthority:
    """A fresh anchor and issuer, valid from `now` on (with the allowance for clock skew)."""
    moment = now or dt.datetime.now(dt.UTC)
    anchor = make_anchor(trust_domain, moment)
    return LinkerdAuthority(
        anchor, make_issuer(anchor, trust_domain, moment, issuer_life), (anchor.certificate,)
    )


def make_anchor(trust_domain: str, moment: dt.datetime) -> Anchor:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _common_name(f"root.{identity_suffix(trust_domain).partition('.')[2]}")
    begin, end = moment - CLOCK_SKEW, moment + ANCHOR_LIFE
    return Anchor(sign_authority(name, key, name, key, begin, end, path_length=DEEPEST), key)


def make_issuer(
    anchor: Anchor, trust_domain: str, moment: dt.datetime, life: dt.timedelta, depth: int = 1
) -> Issuer:
    """`depth`: how many authorities there are below the anchor; the last one is the issuer."""
    above: tuple[x509.Certificate, ...] = ()
    signer, signing_key = anchor.certificate, anchor.key
    for number in range(depth - 1, -1, -1):
        key = ec.generate_private_key(ec.SECP256R1())
        name = identity_suffix(trust_domain)
        made = sign_authority(
            _common_name(name if number == 0 else f"{number}.{name}"),
            key, signer.subject, signing_key, moment - CLOCK_SKEW, moment + life, path_length=number,
        )  # fmt: skip
        if number:
            above = (made, *above)
        signer, signing_key = made, key
    return Issuer(signer, signing_key, above)


def store_issuer(issuer: Issuer, directory: Path) -> None:
    """Its certificate with those above it, as in Linkerd's secret."""
    chain = b"".join(each.public_bytes(_PEM) for each in (issuer.certificate, *issuer.above))
    write_private(directory / "issuer.pem", chain)
    write_private(directory / "issuer.key.pem", _private_bytes(issuer.key, _PEM))


def load_issuer(directory: Path) -> Issuer:
    key = serialization.load_pem_private_key((directory / "issuer.key.pem").read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the issuer's key is not an elliptic-curve key")
    own, *above = x509.load_pem_x509_certificates((directory / "issuer.pem").read_bytes())
    return Issuer(own, key, tuple(above))


def token_digest(token: bytes) -> str:
    """What the controller keeps of a token."""
    return hashlib.sha256(token).hexdigest()


# --- what a workload brings ----------------------------------------------------------------------


def make_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_der(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#8, the `key.p8` of a proxy."""
    return _private_bytes(key, _DER)


def request_der(identity: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS#10, the `csr.der` of a proxy: CN and one DNS SAN (linkerd2: proxy-identity/main.go)."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_common_name(identity))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(identity)]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(_DER)
    )


def identity_for_prober(issuer: Issuer, name: str, key: ec.EllipticCurvePrivateKey) -> Identity:
    """A certificate outside of any proxy, PEM, for the outsiders of a proof."""
    leaf = issuer.certify(name, request_der(name, key), dt.datetime.now(dt.UTC), LEAF_LIFE)
    chain = b"".join(
        x509.load_der_x509_certificate(der).public_bytes(_PEM) for der in (leaf.certificate, *leaf.chain)
    )
    return Identity(name, chain, _private_bytes(key, _PEM))


def checked_key(identity: str, request: bytes) -> ec.EllipticCurvePublicKey:
    """The key of a signing request that asks for exactly this identity. Raises CertificateRefused."""
    try:
        csr = x509.load_der_x509_csr(request)
        valid = csr.is_signature_valid
        key = csr.public_key()
        names = _alternative_names(csr)
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise CertificateRefused("INVALID_ARGUMENT", f"not a certificate signing request: {error}") from error
    if not valid:
        raise CertificateRefused("FAILED_PRECONDITION", "the request is not signed by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateRefused("FAILED_PRECONDITION", "the key is not ECDSA P-256")
    if any(not isinstance(name, x509.DNSName) for name in names):
        raise CertificateRefused(
            "FAILED_PRECONDITION", "alternative names other than DNS names are not signed"
        )
    if [name.value for name in names] != [identity]:
        raise CertificateRefused("FAILED_PRECONDITION", f"the request's only DNS name must be {identity}")
    common = [str(attribute.value) for attribute in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if common not in ([], [""], [identity]):
        raise CertificateRefused(
            "FAILED_PRECONDITION", f"the request's common name must be empty or {identity}"
        )
    return key


def _alternative_names(csr: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


# --- shared ----------------------------------------------------------------------------------------


def _common_name(name: str) -> x509.Name:
    """Empty for a name that is too long for it (RFC 5280, ub-common-name); the DNS SAN says it anyway."""
    if len(name) > 64:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _private_bytes(key: ec.EllipticCurvePrivateKey, encoding: serialization.Encoding) -> bytes:
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
