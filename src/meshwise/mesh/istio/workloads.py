"""Keys and certificates of one placement: of its sidecars, and of the outsiders that test them.

Keys live as long as the mesh object, one per workload, process set and key type; certificates are issued
afresh at every start of the proxies (`identity` says why).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from meshwise.mesh.expectations import Who
from meshwise.mesh.files import private_directory
from meshwise.mesh.identity import CertificateAuthority, IdentityFiles, PrivateKey, files_of, make_key, store
from meshwise.mesh.seam import Placement
from meshwise.study.model import KeyType

OUTSIDERS_DIRECTORY = "outsiders"
_FOREIGN_NAMESPACE = "elsewhere"
_OTHER_ACCOUNT = "other"


class WorkloadIdentities:
    """Owner of the mesh's authority and of every private key."""

    def __init__(self) -> None:
        self._authorities: dict[str, CertificateAuthority] = {}
        self._foreign: CertificateAuthority | None = None
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
        authority = self._authority(placement.trust_domain)
        self._foreign = self._foreign or CertificateAuthority(
            placement.trust_domain, key_type=KeyType.ECDSA_P256
        )
        client = placement.workloads[0].workload
        named = {
            Who.TWIN: (authority, client.namespace, client.service_account),
            Who.OTHER_ACCOUNT: (authority, client.namespace, _OTHER_ACCOUNT),
            Who.OTHER_NAMESPACE: (authority, _FOREIGN_NAMESPACE, client.service_account),
            Who.FOREIGN: (self._foreign, client.namespace, client.service_account),
        }
        directory = private_directory(placement.directory / OUTSIDERS_DIRECTORY)
        for who, (issuer, namespace, account) in named.items():
            # An outsider's own key only has to be cheap: what is tested is the name that it claims.
            key = self._key(KeyType.ECDSA_P256, OUTSIDERS_DIRECTORY, who.name)
            store(issuer.issue(namespace, account, key), authority.root_pem, directory, who.name.lower())

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


def files_of_outsiders(placement: Placement) -> Mapping[Who, IdentityFiles]:
    directory = placement.directory / OUTSIDERS_DIRECTORY
    presenting = (Who.TWIN, Who.OTHER_ACCOUNT, Who.OTHER_NAMESPACE, Who.FOREIGN)
    return {who: files_of(directory, who.name.lower()) for who in presenting}
