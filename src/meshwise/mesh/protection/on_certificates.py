"""Attempts of a pod outside the mesh that speaks TLS as a sidecar does, with what it should not have."""

from __future__ import annotations

from meshwise.mesh.expectations import What
from meshwise.mesh.protection.attempt import (
    ALWAYS,
    BY_CALLER,
    BY_REQUEST,
    ENCRYPTED,
    LEAST_PRIVILEGE,
    NEVER,
    NO_TLS_IN_ISTIO_PLAINTEXT,
    NO_TLS_WITHOUT_MESH,
    STRICT,
    Attempt,
    Documented,
    Stops,
    both,
)
from meshwise.mesh.protection.calls import Presenting
from meshwise.mesh.protection.credentials import Credential

_OUTSIDER = "a pod outside the mesh"
_PORT = "in TLS on the port of the service's pod"
_NO_ANSWER = "no answer of the service"
_AUTHENTICATION = "istio.io/latest/docs/concepts/security/#mutual-tls-authentication"
_AUTHORIZATION = "istio.io/latest/docs/reference/config/security/authorization-policy/#Source"
_ISTIO_VERSIONS = "istio.io/latest/docs/tasks/security/tls-configuration/workload-min-tls-version/"
_MTLS = "linkerd.io/2-edge/features/automatic-mtls/"
_POLICY = "linkerd.io/2-edge/reference/authorization-policy/"
_LINKERD_TLS = "github.com/linkerd/linkerd2-proxy linkerd/rustls, linkerd/meshtls (TLS 1.3 only)"


def _presenting(
    key: str, how: str, step: Presenting, istio: Stops, linkerd: Stops, sources: tuple[str, str]
) -> Attempt:
    return Attempt(
        key,
        _OUTSIDER,
        _PORT,
        how,
        _NO_ANSWER,
        step,
        both(Documented(istio, sources[0]), Documented(linkerd, sources[1])),
        (NO_TLS_WITHOUT_MESH, NO_TLS_IN_ISTIO_PLAINTEXT),
    )


_PEER, _RIGHTS, _TLS = (_AUTHENTICATION, _MTLS), (_AUTHORIZATION, _POLICY), (_ISTIO_VERSIONS, _LINKERD_TLS)

ATTEMPTS = (
    _presenting(
        "no-certificate",
        "presents no certificate",
        Presenting(None),
        ENCRYPTED,
        STRICT | BY_CALLER,
        _PEER,
    ),
    _presenting(
        "self-signed-certificate",
        "presents a certificate of the client's name that it signed itself",
        Presenting(Credential.SELF_SIGNED),
        ENCRYPTED,
        ALWAYS,
        _PEER,
    ),
    _presenting(
        "expired-certificate",
        "presents a certificate of the client that ended a day ago",
        Presenting(Credential.EXPIRED),
        ENCRYPTED,
        ALWAYS,
        _PEER,
    ),
    _presenting(
        "foreign-authority",
        "presents a certificate of the client's name from an authority that the mesh does not know",
        Presenting(Credential.FOREIGN_AUTHORITY),
        ENCRYPTED,
        ALWAYS,
        _PEER,
    ),
    _presenting(
        "foreign-trust-domain",
        "presents a certificate of another trust domain from the authority of that domain",
        Presenting(Credential.FOREIGN_DOMAIN),
        ENCRYPTED,
        ALWAYS,
        _PEER,
    ),
    _presenting(
        "certificate-as-authority",
        "presents a certificate of the client's name, signed with the key of another service's certificate",
        Presenting(Credential.BY_LEAF),
        ENCRYPTED,
        ALWAYS,
        _PEER,
    ),
    _presenting(
        "wrong-namespace",
        "presents a good certificate of a service account in another namespace",
        Presenting(Credential.OTHER_NAMESPACE),
        BY_CALLER,
        BY_CALLER,
        _RIGHTS,
    ),
    _presenting(
        "wrong-account",
        "presents a good certificate of another service account in the client's namespace",
        Presenting(Credential.OTHER_ACCOUNT),
        LEAST_PRIVILEGE,
        LEAST_PRIVILEGE,
        _RIGHTS,
    ),
    _presenting(
        "stolen-from-other",
        "presents certificate and key of another service, which may not call this one",
        Presenting(Credential.OTHER_SERVICE),
        BY_CALLER,
        BY_CALLER,
        _RIGHTS,
    ),
    _presenting(
        "stolen-from-client",
        "presents certificate and key of the client and asks what the client may ask",
        Presenting(Credential.CLIENT),
        NEVER,
        NEVER,
        _RIGHTS,
    ),
    _presenting(
        "stolen-other-path",
        "presents certificate and key of the client and asks for another path",
        Presenting(Credential.CLIENT, What.OTHER_PATH),
        BY_REQUEST,
        BY_REQUEST,
        _RIGHTS,
    ),
    _presenting(
        "tls-1.0",
        "presents certificate and key of the client and offers TLS 1.0 only",
        Presenting(Credential.CLIENT, versions=("TLSv1", "TLSv1"), ciphers="ALL:@SECLEVEL=0"),
        ENCRYPTED,
        ALWAYS,
        _TLS,
    ),
    _presenting(
        "tls-1.1",
        "presents certificate and key of the client and offers TLS 1.1 only",
        Presenting(Credential.CLIENT, versions=("TLSv1_1", "TLSv1_1"), ciphers="ALL:@SECLEVEL=0"),
        ENCRYPTED,
        ALWAYS,
        _TLS,
    ),
    _presenting(
        "tls-1.2",
        "presents certificate and key of the client and offers TLS 1.2 only",
        Presenting(Credential.CLIENT, versions=("TLSv1_2", "TLSv1_2")),
        NEVER,
        ALWAYS,
        _TLS,
    ),
    _presenting(
        "weak-cipher",
        "presents certificate and key of the client and offers TLS 1.2 with CBC and SHA-1 only",
        Presenting(
            Credential.CLIENT,
            versions=("TLSv1_2", "TLSv1_2"),
            ciphers="ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA:AES128-SHA:@SECLEVEL=0",
        ),
        ENCRYPTED,
        ALWAYS,
        _TLS,
    ),
)
