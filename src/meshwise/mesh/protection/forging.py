"""Certificates that no authority would issue: self-signed, by a leaf, past their end.

Certificates differ from the mesh's own in the one thing that each of them is named for (RFC 5280 sections
4.1.2.5 and 4.2.1.9), so that what refuses them is known.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from meshwise.mesh.identity import CLOCK_SKEW, LEAF_LIFE, Identity, key_usage
from meshwise.mesh.protection.credentials import Credential

_PEM = serialization.Encoding.PEM
_NOBODY = x509.Name([])

Key = ec.EllipticCurvePrivateKey


def leaf(
    name: x509.GeneralName, key: Key, issuer: x509.Name, signing_key: Key, begin: dt.datetime
) -> x509.Certificate:
    """As meshes issue them, for a day from `begin`."""
    critical = isinstance(
        name, x509.UniformResourceIdentifier
    )  # then there is no other name (section 4.2.1.6)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        x509.CertificateBuilder()
        .subject_name(_NOBODY)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + LEAF_LIFE)
        .add_extension(key_usage("digital_signature", "key_encipherment"), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([name]), critical=critical)
        .sign(signing_key, hashes.SHA256())
    )


def identity_of(name: str, chain: Sequence[x509.Certificate], key: Key) -> Identity:
    pem = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Identity(name, b"".join(each.public_bytes(_PEM) for each in chain), pem)


def forged(
    name: x509.GeneralName, of_other: Identity, key_of_other: Key, now: dt.datetime
) -> Mapping[Credential, Identity]:
    """What the owner of another service's certificate can make itself, for this name."""
    key, begin = ec.generate_private_key(ec.SECP256R1()), now - CLOCK_SKEW
    others = x509.load_pem_x509_certificates(of_other.chain)
    alone = leaf(name, key, _NOBODY, key, begin)
    below = leaf(name, key, others[0].subject, key_of_other, begin)
    return {
        Credential.SELF_SIGNED: identity_of(name.value, [alone], key),
        Credential.BY_LEAF: identity_of(name.value, [below, *others], key),
    }
