"""Certificates of the outsiders that a proof calls with: the client's twin, and others that must fail."""

from __future__ import annotations

from collections.abc import Mapping

from meshwise.mesh.expectations import Who
from meshwise.mesh.files import private_directory
from meshwise.mesh.identity import IdentityFiles, files_of, store
from meshwise.mesh.linkerd.authority import LinkerdAuthority, identity_for_prober, make_authority, make_key
from meshwise.mesh.linkerd.names import identity_name
from meshwise.mesh.seam import Placement

DIRECTORY = "outsiders"
_FOREIGN_NAMESPACE = "elsewhere"
_OTHER_ACCOUNT = "other"
PRESENTING = (Who.TWIN, Who.OTHER_ACCOUNT, Who.OTHER_NAMESPACE, Who.FOREIGN)


def issue(placement: Placement, own: LinkerdAuthority) -> None:
    """Fresh certificates, P-256 like every other in Linkerd."""
    client = placement.workloads[0].workload
    foreign = make_authority(placement.trust_domain)
    named = {
        Who.TWIN: (own, client.namespace, client.service_account),
        Who.OTHER_ACCOUNT: (own, client.namespace, _OTHER_ACCOUNT),
        Who.OTHER_NAMESPACE: (own, _FOREIGN_NAMESPACE, client.service_account),
        Who.FOREIGN: (foreign, client.namespace, client.service_account),
    }
    directory = private_directory(placement.directory / DIRECTORY)
    for who, (issuer, namespace, account) in named.items():
        name = identity_name(namespace, account, placement.trust_domain)
        identity = identity_for_prober(issuer.issuer, name, make_key())
        store(identity, own.anchor_pem, directory, who.name.lower())


def files(placement: Placement) -> Mapping[Who, IdentityFiles]:
    directory = placement.directory / DIRECTORY
    return {who: files_of(directory, who.name.lower()) for who in PRESENTING}
