"""A SPIFFE certificate authority: what istiod's CA and the sidecar's agent make together.

Rules of this file:
- Names are SPIFFE IDs, `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, in a URI SAN that
  is critical because the subject is empty (RFC 5280 section 4.2.1.6; SPIFFE X.509-SVID section 2).
- Root RSA-2048 for 10 years; one intermediate signs the leaves; leaves live 24 h from 2 minutes ago
  (Istio: security/pkg/pki/util/generate_cert.go, pilot/cmd/pilot-agent/options/options.go), where a cell asks
  for nothing else (`CertificateForm`).
- Where a list of revoked certificates is wanted, every authority of the chain has one, as a verifier that is
  given one asks for all (RFC 5280 section 6.3; Istio: security/pkg/pki/util/keycertbundle.go, Verify).
- A key is made once per workload and run and certificates are re-issued for it: making an RSA key takes
  tens to hundreds of milliseconds, issuing a certificate about one.
- Keys leave the process only into 0600 files of the placement's memory-backed directory; no key and no
  certificate is ever logged or archived.
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshwise.mesh.files import write_private
from meshwise.study.model import Cell, KeyType

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

ROOT_LIFE = dt.timedelta(days=3650)
LEAF_LIFE = dt.timedelta(hours=24)
CLOCK_SKEW = dt.timedelta(minutes=2)
DEEPEST = 3
"""Intermediates that a chain may have."""

_LEAF_USAGE = ("digital_signature", "key_encipherment")
_CA_USAGE = ("key_cert_sign", "crl_sign")


def spiffe_id(trust_domain: str, namespace: str, service_account: str) -> str:
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"


def make_key(key_type: KeyType) -> PrivateKey:
    match key_type:
        case KeyType.ECDSA_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyType.ECDSA_P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyType.RSA_2048:
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case KeyType.RSA_3072:
            return rsa.generate_private_key(public_exponent=65537, key_size=3072)


def key_name(certificate: x509.Certificate) -> str:
    """As `KeyType` names its key, where that has a name for it."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa-{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ecdsa-p{key.key_size}"
    return type(key).__name__


@dataclass(frozen=True)
class CertificateForm:
    """What a cell asks of its certificates."""

    key_type: KeyType
    depth: int = 1
    """Intermediates that are sent behind the leaf."""
    revoked: int = 0
    """Entries of the list of revoked certificates; 0: there is no list."""
    life: dt.timedelta = LEAF_LIFE

    @property
    def name(self) -> str:
        """Of its files."""
        further = {
            f"depth{self.depth}": self.depth != 1,
            f"crl{self.revoked}": self.revoked > 0,
            f"valid{self.life // dt.timedelta(seconds=1)}s": self.life != LEAF_LIFE,
        }
        return "-".join([str(self.key_type), *(name for name, there in further.items() if there)])


def form_of(cell: Cell) -> CertificateForm:
    life = dt.timedelta(seconds=cell.certificate_life_s)
    return CertificateForm(cell.key_type, cell.chain_depth, cell.crl_entries, life)


@dataclass(frozen=True)
class Identity:
    """An X.509-SVID with its key, PEM. `chain` is the leaf, then its issuer, and so on."""

    spiffe_id: str
    chain: bytes
    key: bytes

    def __repr__(self) -> str:  # the key must not reach a log by way of a repr
        return f"Identity({self.spiffe_id})"


@dataclass(frozen=True)
class IdentityFiles:
    """Where the files of an identity are, for a proxy or for the prober's TLS client."""

    chain: Path
    key: Path
    root: Path
    crl: Path | None = None
    """Lists of revoked certificates, where there are any."""


@dataclass(frozen=True, eq=False)
class _Signer:
    certificate: x509.Certificate
    key: PrivateKey


class CertificateAuthority:
    """A root, intermediates, and what they sign. Its keys live in this object only.

    Each depth of chain has intermediates of its own, made when it is first asked for, so that those of one
    depth are the same whatever else a study varies."""

    def __init__(
        self,
        trust_domain: str = "cluster.local",
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        key_type: KeyType = KeyType.RSA_2048,
        keys: tuple[PrivateKey, PrivateKey] | None = None,
    ) -> None:
        """`key_type` is that of root and intermediates; Istio's is RSA-2048. `keys`: of the root and of the
        one that signs leaves, where they are made already."""
        self.trust_domain = trust_domain
        self.revoked_serial = x509.random_serial_number()
        """Of a certificate that every list of revoked ones names."""
        self._now = now
        self._key_type = key_type
        key = keys[0] if keys else make_key(key_type)
        self._issuing_key = keys[1] if keys else None
        self._root = _Signer(self._sign_authority("Root CA", key, None, key, path_length=DEEPEST), key)
        self._below: dict[int, list[_Signer]] = {}
        self._former: tuple[_Signer, ...] = ()
        self._lists: dict[tuple[int, int], bytes] = {}

    def with_issuer(self, key: PrivateKey) -> CertificateAuthority:
        """The same root, and another intermediate, of this key, that signs leaves; of a deeper chain the
        others stay."""
        made = copy.copy(self)
        made._issuing_key, made._below, made._lists = key, {}, {}
        for depth, (former, *above) in self._below.items():
            made._former = (*made._former, former)
            made._below[depth] = [made._issuer(depth, above), *above]
        return made

    @cached_property
    def root_pem(self) -> bytes:
        return self._root.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        namespace: str,
        service_account: str,
        key: PrivateKey,
        age: dt.timedelta = dt.timedelta(),
        life: dt.timedelta = LEAF_LIFE,
        *,
        depth: int = 1,
        serial: int | None = None,
    ) -> Identity:
        """A leaf for a key that the workload keeps; `age`: how long ago it was issued, or by how much the
        authority's clock is behind; `life`: from then on. `depth`: how many intermediates there are.
        `serial`: instead of one drawn at random."""
        issuers = self._issuers(depth)
        name = spiffe_id(self.trust_domain, namespace, service_account)
        now = self._now() - age
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(issuers[0].certificate.subject)
            .public_key(key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + life)
            .add_extension(key_usage(*_LEAF_USAGE), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_authority_key(issuers[0].key), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)]), critical=True)
        )
        leaf = builder.sign(issuers[0].key, hashes.SHA256())
        chain = b"".join(
            certificate.public_bytes(serialization.Encoding.PEM)
            for certificate in (leaf, *(each.certificate for each in issuers))
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Identity(name, chain, pem)

    def revoked_pem(self, depth: int, entries: int) -> bytes:
        """Lists of revoked certificates, PEM: of the root, of what signs outsiders, and of every authority of
        a chain of this depth, those that issued before a rotation included. The one that signs its leaves
        names `entries` certificates that nobody has, but for one of `revoked_serial`; the others name that
        one alone."""
        if (depth, entries) not in self._lists:
            issuers = self._issuers(depth)
            brief = (self._root, *self._former, *self._issuers(1), *issuers[1:])
            lengths = dict.fromkeys(brief, 1) | {issuers[0]: entries}
            lists = [_revoked(each, self._serials(count), self._now()) for each, count in lengths.items()]
            self._lists[depth, entries] = b"".join(
                each.public_bytes(serialization.Encoding.PEM) for each in lists
            )
        return self._lists[depth, entries]

    def _serials(self, count: int) -> list[int]:
        return [self.revoked_serial, *(x509.random_serial_number() for _ in range(count - 1))]

    def _issuers(self, depth: int) -> list[_Signer]:
        """The one that signs leaves first."""
        if depth not in self._below:
            above: list[_Signer] = []
            for place in range(1, depth):
                above.insert(0, self._authority_below(above, place, depth, make_key(self._key_type)))
            self._below[depth] = [self._issuer(depth, above), *above]
        return self._below[depth]

    def _issuer(self, depth: int, above: list[_Signer]) -> _Signer:
        return self._authority_below(above, depth, depth, self._issuing_key or make_key(self._key_type))

    def _authority_below(self, above: list[_Signer], place: int, depth: int, key: PrivateKey) -> _Signer:
        name = "Intermediate CA" if depth == 1 else f"Intermediate CA {place} of {depth}"
        signer = above[0] if above else self._root
        return _Signer(self._sign_authority(name, key, signer.certificate, signer.key, depth - place), key)

    def _sign_authority(
        self,
        name: str,
        key: PrivateKey,
        issuer: x509.Certificate | None,
        signing_key: PrivateKey,
        path_length: int,
    ) -> x509.Certificate:
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.trust_domain),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        now = self._now()
        return sign_authority(
            subject, key, issuer.subject if issuer else subject, signing_key,
            now - CLOCK_SKEW, now + ROOT_LIFE, path_length,
        )  # fmt: skip


def store(
    identity: Identity,
    root_pem: bytes,
    directory: Path,
    name: str,
    uid: int | None = None,
    revoked_pem: bytes | None = None,
) -> IdentityFiles:
    """Writes `<name>.chain.pem`, `<name>.key.pem` and `root.pem`, and `<name>.crl.pem` where there are lists
    of revoked certificates; each 0600."""
    files = files_of(directory, name, revoked=revoked_pem is not None)
    write_private(files.chain, identity.chain, uid)
    write_private(files.key, identity.key, uid)
    write_private(files.root, root_pem, uid)
    if files.crl and revoked_pem is not None:
        write_private(files.crl, revoked_pem, uid)
    return files


def files_of(directory: Path, name: str, *, revoked: bool = False) -> IdentityFiles:
    return IdentityFiles(
        directory / f"{name}.chain.pem",
        directory / f"{name}.key.pem",
        directory / "root.pem",
        directory / f"{name}.crl.pem" if revoked else None,
    )


def serial_of(files: IdentityFiles) -> str:
    """Of the leaf, in hexadecimal digits, as proxies and OpenSSL write it."""
    return f"{x509.load_pem_x509_certificate(files.chain.read_bytes()).serial_number:x}"


def spiffe_ids(certificate: x509.Certificate) -> tuple[str, ...]:
    """The URI names of a certificate; empty when it has none."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))


def sign_authority(
    subject: x509.Name,
    key: PrivateKey,
    issuer: x509.Name,
    signing_key: PrivateKey,
    not_before: dt.datetime,
    not_after: dt.datetime,
    path_length: int,
) -> x509.Certificate:
    """The certificate of an authority that signs certificates only."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(key_usage(*_CA_USAGE), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_key(signing_key), critical=False)
        .sign(signing_key, hashes.SHA256())
    )


def _revoked(signer: _Signer, serials: list[int], now: dt.datetime) -> x509.CertificateRevocationList:
    """A list (RFC 5280 section 5) of these certificates."""
    entries: list[x509.RevokedCertificate] = [
        x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - CLOCK_SKEW).build()
        for serial in serials
    ]
    # Given whole: to add them one by one would copy the list each time.
    return (
        x509.CertificateRevocationListBuilder(revoked_certificates=entries)
        .issuer_name(signer.certificate.subject)
        .last_update(now - CLOCK_SKEW)
        .next_update(now + ROOT_LIFE)
        .add_extension(_authority_key(signer.key), critical=False)
        .add_extension(x509.CRLNumber(1), critical=False)
        .sign(signer.key, hashes.SHA256())
    )


def _authority_key(key: PrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def key_usage(*names: str) -> x509.KeyUsage:
    """These usages of a key (RFC 5280 section 4.2.1.3), by cryptography's names, and no other."""
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in names for name in every})
