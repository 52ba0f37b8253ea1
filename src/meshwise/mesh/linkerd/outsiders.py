"""Certificates of the outsiders that call a sidecar: the client's twin, and others that must fail."""

from __future__ import annotations

import datetime as dt

from cryptography import x509

from meshwise.mesh.files import private_directory
from meshwise.mesh.identity import LEAF_LIFE, store
from meshwise.mesh.linkerd.authority import LinkerdAuthority, identity_for_prober, make_authority, make_key
from meshwise.mesh.linkerd.names import identity_name
from meshwise.mesh.protection.credentials import DIRECTORY, FOREIGN_TRUST_DOMAIN, Credential
from meshwise.mesh.protection.forging import forged, identity_of, leaf
from meshwise.mesh.seam import Placement

_FOREIGN_NAMESPACE = "elsewhere"
_OTHER_ACCOUNT = "other"


def issue(placement: Placement, own: LinkerdAuthority) -> None:
    """Fresh certificates, P-256 like every other in Linkerd."""
    client, other = placement.workloads[0].workload, placement.workloads[-1].workload
    domain, now = placement.trust_domain, dt.datetime.now(dt.UTC)
    foreign, elsewhere = make_authority(domain), make_authority(FOREIGN_TRUST_DOMAIN)
    named = {
        Credential.CLIENT: (own, client.namespace, client.service_account, domain),
        Credential.OTHER_ACCOUNT: (own, client.namespace, _OTHER_ACCOUNT, domain),
        Credential.OTHER_NAMESPACE: (own, _FOREIGN_NAMESPACE, client.service_account, domain),
        Credential.FOREIGN_AUTHORITY: (foreign, client.namespace, client.service_account, domain),
        Credential.FOREIGN_DOMAIN: (
            elsewhere,
            client.namespace,
            client.service_account,
            FOREIGN_TRUST_DOMAIN,
        ),
        Credential.OTHER_SERVICE: (own, other.namespace, other.service_account, domain),
    }
    keys = {credential: make_key() for credential in (*named, Credential.EXPIRED)}
    made = {
        credential: identity_for_prober(issuer.issuer, identity_name(*whose), keys[credential])
        for credential, (issuer, *whose) in named.items()
    }
    name, issuer = x509.DNSName(made[Credential.CLIENT].spiffe_id), own.issuer
    key = keys[Credential.EXPIRED]
    expired = leaf(name, key, issuer.certificate.subject, issuer.key, now - 2 * LEAF_LIFE)
    made[Credential.EXPIRED] = identity_of(name.value, [expired, issuer.certificate], key)
    made |= forged(name, made[Credential.OTHER_SERVICE], keys[Credential.OTHER_SERVICE], now)
    directory = private_directory(placement.directory / DIRECTORY)
    for credential, identity in made.items():
        store(identity, own.anchor_pem, directory, str(credential))
