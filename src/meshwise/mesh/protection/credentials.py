"""What an attacker may present in TLS: one file each, issued where the mesh's authority is.

Every certificate has its chain in `<name>.chain.pem` and its key in `<name>.key.pem` below the outsiders'
directory of a placement, 0600; no key and no certificate becomes evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from meshwise.mesh.expectations import Who
from meshwise.mesh.identity import IdentityFiles, files_of
from meshwise.mesh.seam import Placement

DIRECTORY = "outsiders"


class Credential(StrEnum):
    """A certificate with its key; the value is the name of its files."""

    CLIENT = "twin"
    """The allowed client's own name, issued by the mesh's authority: what a thief of its key has."""
    OTHER_ACCOUNT = "other_account"
    OTHER_NAMESPACE = "other_namespace"
    FOREIGN_AUTHORITY = "foreign"
    """The client's name, issued by an authority that the mesh does not know."""
    FOREIGN_DOMAIN = "foreign_domain"
    """Of another trust domain, issued by that domain's authority."""
    EXPIRED = "expired"
    """The client's name, issued by the mesh's authority, and past its end."""
    REVOKED = "revoked"
    """The client's name, issued by the mesh's authority, and revoked: on every list that the authority makes.
    Only of a mesh whose proxies read such lists."""
    SELF_SIGNED = "self_signed"
    """The client's name, signed by its own key."""
    BY_LEAF = "by_leaf"
    """The client's name, signed with the key of another service's certificate, which is no authority's."""
    OTHER_SERVICE = "other_service"
    """Of the last service of the placement, which may not call the first."""


FOREIGN_TRUST_DOMAIN = "elsewhere.example"


def credential_files(placement: Placement, credential: Credential) -> IdentityFiles:
    return files_of(placement.directory / DIRECTORY, str(credential))


def files_of_outsiders(placement: Placement) -> Mapping[Who, IdentityFiles]:
    """Of those who present a certificate in a proof."""
    presenting = {
        Who.TWIN: Credential.CLIENT,
        Who.OTHER_ACCOUNT: Credential.OTHER_ACCOUNT,
        Who.OTHER_NAMESPACE: Credential.OTHER_NAMESPACE,
        Who.FOREIGN: Credential.FOREIGN_AUTHORITY,
    }
    return {who: credential_files(placement, credential) for who, credential in presenting.items()}
