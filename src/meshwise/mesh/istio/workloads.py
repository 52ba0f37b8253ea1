"""Keys and certificates of one placement: of its sidecars, and of the outsiders that test them.

Keys live as long as the mesh object, one per workload, process set and key type; certificates are issued
afresh at every start of the proxies (`identity` says why), between trials where they live shortly, and within
a trial where its events say so. What was renewed has files of its own, with a number: who watches a file by
its name sees another one.
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
    CertificateForm,
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

    def __init__(self, spare_keys: int = 0) -> None:
        """`spare_keys`: made before proxies start, for authorities
        that come within trials: making one takes a CPU for a tenth of a second."""
        self._spare_keys = spare_keys
        self._spares: list[PrivateKey] = []
        self._taken: dict[str, int] = {}
        """How many of the spare keys a process set has in use in this trial."""
        self._successors: dict[str, CertificateAuthority] = {}
        """By process set: what its authority has become within a trial."""
        self._current: dict[tuple[str, str, CertificateForm], IdentityFiles] = {}
        self._numbers = itertools.count(1)
        self._faults: dict[str, RenewalFault] = {}
        self._skews: dict[str, dt.timedelta] = {}
        self._authorities: dict[str, CertificateAuthority] = {}
        self._foreign: dict[str, CertificateAuthority] = {}
        self._twins: dict[Path, tuple[CertificateForm, dt.datetime]] = {}
        """What the client's twin was last given, and when."""
        self._keys: dict[tuple[str, ...], PrivateKey] = {}

    def issue_all(self, placement: Placement, form: CertificateForm, uid: int | None) -> None:
        """Fresh certificates for every workload and outsider of the placement."""
        while len(self._spares) < self._spare_keys:
            self._spares.append(make_key(KeyType.RSA_2048))
        self._clear(placement)
        for placed in placement.workloads:
            self.issue(placement, placed.name, form, uid)
        self.issue_outsiders(placement, form)

    def issue(self, placement: Placement, name: str, form: CertificateForm, uid: int | None) -> IdentityFiles:
        """A fresh certificate for one workload."""
        return self._store(placement, name, form, uid, form.name)

    # --- within a trial ----------------------------------------------------------------------------

    def current(self, placement: Placement, name: str, form: CertificateForm) -> IdentityFiles:
        """What the workload has now; perhaps not there yet, where nothing of this form was issued."""
        here = (placement.process_set, name, form)
        return self._current.get(here) or files_of_workload(placement, name, form)

    def renew(
        self,
        placement: Placement,
        name: str,
        form: CertificateForm,
        uid: int | None,
        roots: bytes | None = None,
    ) -> IdentityFiles:
        """A new certificate for the key that it has. `roots`: whom it trusts, else the authority's own."""
        label = f"{form.name}-{next(self._numbers)}"
        files = self._store(placement, name, form, uid, label, roots)
        self._current[placement.process_set, name, form] = files
        return files

    def trust(
        self, placement: Placement, name: str, form: CertificateForm, uid: int | None, roots: bytes
    ) -> IdentityFiles:
        """The certificate that it has, and others whom it trusts. A copy: a name stands for one content."""
        former = self.current(placement, name, form)
        label, directory = f"{form.name}-{next(self._numbers)}", keys_directory(placement, name)
        files = _with_own_roots(directory, label, form)
        write_private(files.chain, former.chain.read_bytes(), uid)
        write_private(files.key, former.key.read_bytes(), uid)
        write_private(files.root, roots, uid)
        self._write_revoked(placement, form, files, uid)
        self._current[placement.process_set, name, form] = files
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

    def forget(self, placement: Placement, form: CertificateForm, uid: int | None) -> None:
        """Between trials: certificates of the mesh's first authority again, fresh where they live shortly."""
        outsiders_are_strangers = placement.process_set in self._successors
        self._clear(placement)
        if outsiders_are_strangers:
            self.issue_outsiders(placement, form)
        self._issue_twin(placement, form)
        if form.life < LEAF_LIFE:
            for placed in placement.workloads:
                self.renew(placement, placed.name, form, uid)

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
        form: CertificateForm,
        uid: int | None,
        label: str,
        roots: bytes | None = None,
    ) -> IdentityFiles:
        authority, workload = self._authority_of(placement), placement[name].workload
        key = self._key(form.key_type, placement.process_set, name)
        behind = -self._skews.get(placement.process_set, dt.timedelta())
        identity = authority.issue(
            workload.namespace, workload.service_account, key, behind, form.life, depth=form.depth
        )
        directory = private_directory(keys_directory(placement, name), uid)
        if label == form.name:
            return store(identity, authority.root_pem, directory, label, uid, self._revoked(placement, form))
        files = _with_own_roots(directory, label, form)
        write_private(files.chain, identity.chain, uid)
        write_private(files.key, identity.key, uid)
        write_private(files.root, roots or authority.root_pem, uid)
        self._write_revoked(placement, form, files, uid)
        return files

    def _write_revoked(
        self, placement: Placement, form: CertificateForm, files: IdentityFiles, uid: int | None
    ) -> None:
        revoked = self._revoked(placement, form)
        if files.crl and revoked:
            write_private(files.crl, revoked, uid)

    def _revoked(self, placement: Placement, form: CertificateForm) -> bytes | None:
        """Lists of revoked certificates, where the form has any: of the mesh's first authority, and of what
        it has become within a trial, since certificates of both are about for a while."""
        if not form.revoked:
            return None
        authorities = dict.fromkeys((self._authority(placement.trust_domain), self._authority_of(placement)))
        return b"".join(each.revoked_pem(form.depth, form.revoked) for each in authorities)

    def _authority_of(self, placement: Placement) -> CertificateAuthority:
        return self._successors.get(placement.process_set) or self._authority(placement.trust_domain)

    def _spare(self, process_set: str) -> PrivateKey:
        number = self._taken[process_set] = self._taken.get(process_set, 0) + 1
        while len(self._spares) < number:
            self._spares.append(make_key(KeyType.RSA_2048))
        return self._spares[number - 1]

    # --- of outsiders ------------------------------------------------------------------------------

    def issue_outsiders(self, placement: Placement, form: CertificateForm) -> None:
        """But for the client's twin, an outsider's own key only has to be cheap: what is tried is the name
        that it claims, and who says so."""
        self._twins.pop(placement.directory, None)
        self._issue_twin(placement, form)
        own = self._authority_of(placement)
        foreign = self._foreign_authority(placement.trust_domain)
        elsewhere = self._foreign_authority(FOREIGN_TRUST_DOMAIN)
        client, other = placement.workloads[0].workload, placement.workloads[-1].workload
        named = {
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
        made[Credential.REVOKED] = own.issue(
            client.namespace, client.service_account, self._outsiders_key(Credential.REVOKED),
            serial=own.revoked_serial,
        )  # fmt: skip
        key = self._outsiders_key(Credential.EXPIRED)
        made[Credential.EXPIRED] = own.issue(client.namespace, client.service_account, key, age=2 * LEAF_LIFE)
        name = x509.UniformResourceIdentifier(made[Credential.EXPIRED].spiffe_id)
        key_of_other = self._outsiders_key(Credential.OTHER_SERVICE)
        made |= forged(name, made[Credential.OTHER_SERVICE], key_of_other, dt.datetime.now(dt.UTC))
        directory = private_directory(placement.directory / DIRECTORY)
        for credential, identity in made.items():
            store(identity, own.root_pem, directory, str(credential))

    def _issue_twin(self, placement: Placement, form: CertificateForm) -> None:
        """The client's twin has a certificate of this form too, so that a sidecar that it calls has to verify
        what it would of the client's own sidecar."""
        now = dt.datetime.now(dt.UTC)
        known = self._twins.get(placement.directory)
        if known and known[0] == form and now - known[1] < form.life / 2:
            return
        client, own = placement.workloads[0].workload, self._authority_of(placement)
        key = self._key(form.key_type, DIRECTORY, str(Credential.CLIENT))
        made = own.issue(client.namespace, client.service_account, key, life=form.life, depth=form.depth)
        store(made, own.root_pem, private_directory(placement.directory / DIRECTORY), str(Credential.CLIENT))
        self._twins[placement.directory] = form, now

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


def files_of_workload(placement: Placement, name: str, form: CertificateForm) -> IdentityFiles:
    return files_of(keys_directory(placement, name), form.name, revoked=form.revoked > 0)


def _with_own_roots(directory: Path, label: str, form: CertificateForm) -> IdentityFiles:
    """Of what was renewed: whom it trusts is in a file of its own, too."""
    files = files_of(directory, label, revoked=form.revoked > 0)
    return replace(files, root=directory / f"{label}.root.pem")
