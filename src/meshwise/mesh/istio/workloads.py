"""Keys and certificates of one placement: of its sidecars, and of the outsiders that test them.

Keys live as long as the mesh object, one per workload, process set and key type; certificates are issued
afresh at every start of the proxies (`identity` says why).
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from meshwise.mesh.files import private_directory
from meshwise.mesh.identity import (
    LEAF_LIFE,
    CertificateAuthority,
    IdentityFiles,
    PrivateKey,
    files_of,
    make_key,
    store,
)
from meshwise.mesh.protection.credentials import DIRECTORY, FOREIGN_TRUST_DOMAIN, Credential
from meshwise.mesh.protection.forging import forged
from meshwise.mesh.seam import Placement
from meshwise.study.model import KeyType

_FOREIGN_NAMESPACE = "elsewhere"
_OTHER_ACCOUNT = "other"


class WorkloadIdentities:
    """Owner of the mesh's authority and of every private key."""

    def __init__(self) -> None:
        self._authorities: dict[str, CertificateAuthority] = {}
        self._foreign: dict[str, CertificateAuthority] = {}
        self._keys: dict[tuple[str, ...], PrivateKey] = {}

    def issue_all(self, placement: Placement, key_type: KeyType, uid: int | None) -> None:
        """Fresh certificates for every workload and outsider of the placement."""
        for placed in placement.workloads:
            self.issue(placement, placed.name, key_type, uid)
        self._issue_outsiders(placement)

    def issue(self, placement: Placement, name: str, key_type: KeyType, uid: int | None) -> IdentityFiles:
        """A fresh certificate for one workload."""
        authority = self._authority(placement.trust_domain)
        workload = placement[name].workload
        key = self._key(key_type, placement.process_set, name)
        identity = authority.issue(workload.namespace, workload.service_account, key)
        directory = private_directory(keys_directory(placement, name), uid)
        return store(identity, authority.root_pem, directory, str(key_type), uid)

    def _issue_outsiders(self, placement: Placement) -> None:
        """An outsider's own key only has to be cheap: what is tried is the name that it claims, and who says
        so."""
        own = self._authority(placement.trust_domain)
        foreign = self._foreign_authority(placement.trust_domain)
        elsewhere = self._foreign_authority(FOREIGN_TRUST_DOMAIN)
        client, other = placement.workloads[0].workload, placement.workloads[-1].workload
        named = {
            Credential.CLIENT: (own, client.namespace, client.service_account),
            Credential.OTHER_ACCOUNT: (own, client.namespace, _OTHER_ACCOUNT),
            Credential.OTHER_NAMESPACE: (own, _FOREIGN_NAMESPACE, client.service_account),
            Credential.FOREIGN_AUTHORITY: (foreign, client.namespace, client.service_account),
            Credential.FOREIGN_DOMAIN: (elsewhere, client.namespace, client.service_account),
            Credential.OTHER_SERVICE: (own, other.namespace, other.service_account),
        }
        made = {
            credential: issuer.issue(namespace, account, self._outsiders_key(credential))
            for credential, (issuer, namespace, account) in named.items()
        }
        key = self._outsiders_key(Credential.EXPIRED)
        made[Credential.EXPIRED] = own.issue(client.namespace, client.service_account, key, age=2 * LEAF_LIFE)
        name = x509.UniformResourceIdentifier(made[Credential.CLIENT].spiffe_id)
        key_of_other = self._outsiders_key(Credential.OTHER_SERVICE)
        made |= forged(name, made[Credential.OTHER_SERVICE], key_of_other, dt.datetime.now(dt.UTC))
        directory = private_directory(placement.directory / DIRECTORY)
        for credential, identity in made.items():
            store(identity, own.root_pem, directory, str(credential))

    def _outsiders_key(self, credential: Credential) -> ec.EllipticCurvePrivateKey:
        key = self._key(KeyType.ECDSA_P256, DIRECTORY, str(credential))
        assert isinstance(key, ec.EllipticCurvePrivateKey), "asked for by its type"
        return key

    def _foreign_authority(self, trust_domain: str) -> CertificateAuthority:
        if trust_domain not in self._foreign:
            self._foreign[trust_domain] = CertificateAuthority(trust_domain, key_type=KeyType.ECDSA_P256)
        return self._foreign[trust_domain]

    def _authority(self, trust_domain: str) -> CertificateAuthority:
        if trust_domain not in self._authorities:
            self._authorities[trust_domain] = CertificateAuthority(trust_domain)
        return self._authorities[trust_domain]

    def _key(self, key_type: KeyType, *owner: str) -> PrivateKey:
        name = (*owner, str(key_type))
        if name not in self._keys:
            self._keys[name] = make_key(key_type)
        return self._keys[name]


def keys_directory(placement: Placement, name: str) -> Path:
    return placement.directory / name / "keys"


def files_of_workload(placement: Placement, name: str, key_type: KeyType) -> IdentityFiles:
    return files_of(keys_directory(placement, name), str(key_type))
