"""A SPIFFE certificate authority: what istiod's CA and the sidecar's agent make together.

Rules of this file:
- Names are SPIFFE IDs, `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, in a URI SAN that
  is critical because the subject is empty (RFC 5280 section 4.2.1.6; SPIFFE X.509-SVID section 2).
- Root RSA-2048 for 10 years; one intermediate signs the leaves; leaves live 24 h from 2 minutes ago
  (Istio: security/pkg/pki/util/generate_cert.go, pilot/cmd/pilot-agent/options/options.go).
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
from meshwise.study.model import KeyType

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

ROOT_LIFE = dt.timedelta(days=3650)
LEAF_LIFE = dt.timedelta(hours=24)
CLOCK_SKEW = dt.timedelta(minutes=2)

_LEAF_USAGE = ("digital_signature", "key_encipherment")
_CA_USAGE = ("key_cert_sign", "crl_sign")


def spiffe_id(trust_domain: str, namespace: str, service_account: str) -> str:
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"


def make_key(key_type: KeyType) -> PrivateKey:
    if key_type is KeyType.ECDSA_P256:
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Identity:
    """An X.509-SVID with its key, PEM. `chain` is the leaf, then the intermediate."""

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


class CertificateAuthority:
    """A root, an intermediate, and what they sign. Its keys live in this object only."""

    def __init__(
        self,
        trust_domain: str = "cluster.local",
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        key_type: KeyType = KeyType.RSA_2048,
        keys: tuple[PrivateKey, PrivateKey] | None = None,
    ) -> None:
        """`key_type` is that of root and intermediate; Istio's is RSA-2048. `keys`: theirs, where they are
        made already."""
        self.trust_domain = trust_domain
        self._now = now
        self._root_key, self._intermediate_key = keys or (make_key(key_type), make_key(key_type))
        self._root = self._sign_authority(
            "Root CA", self._root_key, self._root_key, issuer=None, path_length=1
        )
        self._intermediate = self._sign_intermediate()

    def with_issuer(self, key: PrivateKey) -> CertificateAuthority:
        """The same root, and an intermediate of this key."""
        made = copy.copy(self)
        made._intermediate_key = key
        made._intermediate = made._sign_intermediate()
        return made

    def _sign_intermediate(self) -> x509.Certificate:
        return self._sign_authority(
            "Intermediate CA", self._intermediate_key, self._root_key, issuer=self._root, path_length=0
        )

    @cached_property
    def root_pem(self) -> bytes:
        return self._root.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        namespace: str,
        service_account: str,
        key: PrivateKey,
        age: dt.timedelta = dt.timedelta(),
        life: dt.timedelta = LEAF_LIFE,
    ) -> Identity:
        """A leaf for a key that the workload keeps; `age`: how long ago it was issued, or by how much the
        authority's clock is behind; `life`: from then on."""
        name = spiffe_id(self.trust_domain, namespace, service_account)
        now = self._now() - age
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._intermediate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + life)
            .add_extension(key_usage(*_LEAF_USAGE), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_authority_key(self._intermediate_key), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)]), critical=True)
        )
        leaf = builder.sign(self._intermediate_key, hashes.SHA256())
        chain = b"".join(
            certificate.public_bytes(serialization.Encoding.PEM) for certificate in (leaf, self._intermediate)
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Identity(name, chain, pem)

    def _sign_authority(
        self,
        name: str,
        key: PrivateKey,
        signing_key: PrivateKey,
        issuer: x509.Certificate | None,
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
    identity: Identity, root_pem: bytes, directory: Path, name: str, uid: int | None = None
) -> IdentityFiles:
    """Writes `<name>.chain.pem`, `<name>.key.pem` and `root.pem`, each 0600."""
    files = files_of(directory, name)
    write_private(files.chain, identity.chain, uid)
    write_private(files.key, identity.key, uid)
    write_private(files.root, root_pem, uid)
    return files


def files_of(directory: Path, name: str) -> IdentityFiles:
    return IdentityFiles(
        directory / f"{name}.chain.pem", directory / f"{name}.key.pem", directory / "root.pem"
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


def _authority_key(key: PrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def key_usage(*names: str) -> x509.KeyUsage:
    """These usages of a key (RFC 5280 section 4.2.1.3), by cryptography's names, and no other."""
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in names for name in every})
