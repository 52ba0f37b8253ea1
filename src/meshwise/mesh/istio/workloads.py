"""Keys and certificates of one placement: of its sidecars, and of the outsiders that test them.

Keys live as long as the mesh object, one per workload, process set and key type; certificates are issued
afresh at every start of the proxies (`identity` says why), and renewed within a trial where its events say
so. What was renewed has files of its own, with a number: who watches a file by its name sees another one.
"""

from __future__ import annotations

import datetime as dt
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from meshwise.mesh.files import private_directory, write_private
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
from meshwise.study.timeline import RenewalFault

_FOREIGN_NAMESPACE = "elsewhere"
_OTHER_ACCOUNT = "other"
SLOW_S = 3.0
"""What a slow authority takes for its answer."""


class WorkloadIdentities:
    """Owner of the mesh's authority and of every private key. What happens to the authority of one process
    set within a trial (`new_issuer`, `new_anchor`, `failing`, `skewed`) is forgotten by `forget`."""

    def __init__(self, leaf_life: dt.timedelta = LEAF_LIFE, spare_keys: int = 0) -> None:
        """`leaf_life`: of workloads' certificates. `spare_keys`: made before proxies start, for authorities
        that come within trials: making one takes a CPU for a tenth of a second."""
        self._life = leaf_life
        self._spare_keys = spare_keys
        self._spares: list[PrivateKey] = []
        self._taken: dict[str, int] = {}
        """How many of the spare keys a process set has in use in this trial."""
        self._successors: dict[str, CertificateAuthority] = {}
        """By process set: what its authority has become within a trial."""
        self._current: dict[tuple[str, str, KeyType], IdentityFiles] = {}
        self._numbers = itertools.count(1)
        self._faults: dict[str, RenewalFault] = {}
        self._skews: dict[str, dt.timedelta] = {}
        self._authorities: dict[str, CertificateAuthority] = {}
        self._foreign: dict[str, CertificateAuthority] = {}
        self._keys: dict[tuple[str, ...], PrivateKey] = {}

    def issue_all(self, placement: Placement, key_type: KeyType, uid: int | None) -> None:
        """Fresh certificates for every workload and outsider of the placement."""
        while len(self._spares) < self._spare_keys:
            self._spares.append(make_key(KeyType.RSA_2048))
        self._clear(placement)
        for placed in placement.workloads:
            self.issue(placement, placed.name, key_type, uid)
        self.issue_outsiders(placement)

    def issue(self, placement: Placement, name: str, key_type: KeyType, uid: int | None) -> IdentityFiles:
        """A fresh certificate for one workload."""
        return self._store(placement, name, key_type, uid, str(key_type))

    # --- within a trial ----------------------------------------------------------------------------

    def current(self, placement: Placement, name: str, key_type: KeyType) -> IdentityFiles:
        """What the workload has now; perhaps not there yet, where nothing of this key type was issued."""
        here = (placement.process_set, name, key_type)
        return self._current.get(here) or files_of_workload(placement, name, key_type)

    def renew(
        self, placement: Placement, name: str, key_type: KeyType, uid: int | None, roots: bytes | None = None
    ) -> IdentityFiles:
        """A new certificate for the key that it has. `roots`: whom it trusts, else the authority's own."""
        label = f"{key_type}-{next(self._numbers)}"
        files = self._store(placement, name, key_type, uid, label, roots)
        self._current[placement.process_set, name, key_type] = files
        return files

    def trust(
        self, placement: Placement, name: str, key_type: KeyType, uid: int | None, roots: bytes
    ) -> IdentityFiles:
        """The certificate that it has, and others whom it trusts. A copy: a name stands for one content."""
        former = self.current(placement, name, key_type)
        label, directory = f"{key_type}-{next(self._numbers)}", keys_directory(placement, name)
        files = IdentityFiles(
            directory / f"{label}.chain.pem", directory / f"{label}.key.pem", directory / f"{label}.root.pem"
        )
        write_private(files.chain, former.chain.read_bytes(), uid)
        write_private(files.key, former.key.read_bytes(), uid)
        write_private(files.root, roots, uid)
        self._current[placement.process_set, name, key_type] = files
        return files

    def root_pem(self, placement: Placement) -> bytes:
        return self._authority_of(placement).root_pem

    def new_issuer(self, placement: Placement) -> None:
        key = self._spare(placement.process_set)
        self._successors[placement.process_set] = self._authority_of(placement).with_issuer(key)

    def new_anchor(self, placement: Placement) -> None:
        keys = self._spare(placement.process_set), self._spare(placement.process_set)
        self._successors[placement.process_set] = CertificateAuthority(placement.trust_domain, keys=keys)

    @contextmanager
    def failing(self, placement: Placement, how: RenewalFault) -> Iterator[None]:
        self._faults[placement.process_set] = how
        try:
            yield
        finally:
            self._faults.pop(placement.process_set, None)

    @contextmanager
    def skewed(self, placement: Placement, by_ns: int) -> Iterator[None]:
        self._skews[placement.process_set] = dt.timedelta(microseconds=by_ns / 1000)
        try:
            yield
        finally:
            self._skews.pop(placement.process_set, None)

    def wait_for_authority(self, placement: Placement) -> str:
        """Why it does not sign; empty when it does, be it late."""
        match self._faults.get(placement.process_set):
            case RenewalFault.REFUSED:
                return "the authority refused to sign"
            case RenewalFault.GONE:
                return "the authority cannot be reached"
            case RenewalFault.SLOW:
                time.sleep(SLOW_S)
        return ""

    def forget(self, placement: Placement, key_type: KeyType, uid: int | None) -> None:
        """Between trials: certificates of the mesh's first authority again, fresh where they live shortly."""
        outsiders_are_strangers = placement.process_set in self._successors
        self._clear(placement)
        if outsiders_are_strangers:
            self.issue_outsiders(placement)
        if self._life < LEAF_LIFE:
            for placed in placement.workloads:
                self.renew(placement, placed.name, key_type, uid)

    def _clear(self, placement: Placement) -> None:
        own = placement.process_set
        self._successors.pop(own, None)
        self._taken.pop(own, None)
        for here in [each for each in self._current if each[0] == own]:
            del self._current[here]

    def _store(
        self,
        placement: Placement,
        name: str,
        key_type: KeyType,
        uid: int | None,
        label: str,
        roots: bytes | None = None,
    ) -> IdentityFiles:
        authority, workload = self._authority_of(placement), placement[name].workload
        key = self._key(key_type, placement.process_set, name)
        behind = -self._skews.get(placement.process_set, dt.timedelta())
        identity = authority.issue(workload.namespace, workload.service_account, key, behind, self._life)
        directory = private_directory(keys_directory(placement, name), uid)
        if label == str(key_type):
            return store(identity, authority.root_pem, directory, label, uid)
        files = replace(files_of(directory, label), root=directory / f"{label}.root.pem")
        write_private(files.chain, identity.chain, uid)
        write_private(files.key, identity.key, uid)
        write_private(files.root, roots or authority.root_pem, uid)
        return files

    def _authority_of(self, placement: Placement) -> CertificateAuthority:
        return self._successors.get(placement.process_set) or self._authority(placement.trust_domain)

    def _spare(self, process_set: str) -> PrivateKey:
        number = self._taken[process_set] = self._taken.get(process_set, 0) + 1
        while len(self._spares) < number:
            self._spares.append(make_key(KeyType.RSA_2048))
        return self._spares[number - 1]

    # --- of outsiders ------------------------------------------------------------------------------

    def issue_outsiders(self, placement: Placement) -> None:
        """An outsider's own key only has to be cheap: what is tried is the name that it claims, and who says
        so."""
        own = self._authority_of(placement)
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
