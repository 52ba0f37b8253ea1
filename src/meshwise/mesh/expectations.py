"""The table of expectations: per posture, who may call what, and how it fails. For every mesh.

One table drives two depths: the simulation (a call walks the generated configuration) and reality
(the proof before a trial). It speaks of meanings (`Meaning`), not of wires: what a refusal looks like
is each mesh's own (`Signs`): Istio refuses a plaintext client under strict by closing its
connection, Linkerd by answering 403; both mean that the peer is not authenticated. Of opaque TCP every mesh
refuses in the one way that there is, by closing the connection.

How to read it: a call is (who, what). `PEER` says whether the posture's mTLS mode admits the caller to
the port at all; `CALLER` and `VARIANT` say what the authorization kind makes of an admitted call. A call
is let through when all of them let it through, and the first that does not is the meaning of the refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from meshwise.study.model import Authorization, Layer, MtlsMode, Posture


class Who(StrEnum):
    """Who calls. The first is inside the mesh; the others stand outside and dial the pod itself."""

    MESH = "client through its sidecar"
    PLAINTEXT = "outsider in plaintext"
    TWIN = "outsider with the client's own identity"
    OTHER_ACCOUNT = "outsider with another service account of the client's namespace"
    OTHER_NAMESPACE = "outsider with an identity of another namespace"
    FOREIGN = "outsider with a certificate of a foreign authority"
    NO_CERTIFICATE = "outsider with TLS but no certificate"


class What(StrEnum):
    """What is asked. Everything but `ALLOWED` breaks one demand of `strict+fine`."""

    ALLOWED = "the allowed request"
    OTHER_METHOD = "another method"
    OTHER_PATH = "another path"
    OTHER_HEADER = "another tenant header"
    OTHER_CLAIM = "a token with another claim"
    NO_TOKEN = "no token"
    EXPIRED_TOKEN = "an expired token"
    FORGED_TOKEN = "a token with a bad signature"


class Meaning(StrEnum):
    """What has to come of a call."""

    ANSWERED = "answered"
    PEER_REFUSED = "refused: peer not authenticated"
    NO_TLS = "refused: the port speaks no TLS"
    DENIED = "denied by authorization"
    TOKEN_REFUSED = "refused: token not valid"


class CallOutcome(StrEnum):
    """What came of a call, as the caller saw it."""

    OK = "200"
    FORBIDDEN = "403"
    UNAUTHENTICATED = "401"
    DECLINED = "declined by the application itself"
    """It was reached, and found that the request says nothing: the bank, which is asked nothing real."""
    CLOSED = "connection refused, reset or closed"
    TLS_FAILED = "TLS handshake failed"
    TIMEOUT = "no answer"
    OTHER = "another answer"


Signs = Mapping[Meaning, frozenset[CallOutcome]]
"""What each meaning looks like in one mesh."""


@dataclass(frozen=True)
class Expectation:
    who: Who
    what: What
    meaning: Meaning

    @property
    def name(self) -> str:
        return f"{self.who}: {self.what}"


_YES, _PEER, _NO_TLS = Meaning.ANSWERED, Meaning.PEER_REFUSED, Meaning.NO_TLS
_DENIED, _TOKEN = Meaning.DENIED, Meaning.TOKEN_REFUSED

# fmt: off
PEER: Mapping[MtlsMode, Mapping[Who, Meaning]] = {
    MtlsMode.DISABLE:    {Who.MESH: _YES, Who.PLAINTEXT: _YES,  Who.TWIN: _NO_TLS, Who.OTHER_ACCOUNT: _NO_TLS,
                          Who.OTHER_NAMESPACE: _NO_TLS, Who.FOREIGN: _NO_TLS, Who.NO_CERTIFICATE: _NO_TLS},
    MtlsMode.PERMISSIVE: {Who.MESH: _YES, Who.PLAINTEXT: _YES,  Who.TWIN: _YES,    Who.OTHER_ACCOUNT: _YES,
                          Who.OTHER_NAMESPACE: _YES,    Who.FOREIGN: _PEER,   Who.NO_CERTIFICATE: _PEER},
    MtlsMode.STRICT:     {Who.MESH: _YES, Who.PLAINTEXT: _PEER, Who.TWIN: _YES,    Who.OTHER_ACCOUNT: _YES,
                          Who.OTHER_NAMESPACE: _YES,    Who.FOREIGN: _PEER,   Who.NO_CERTIFICATE: _PEER},
}
"""Whether the port admits the caller. A caller of a foreign authority never gets further than this."""

CALLER: Mapping[Authorization, Mapping[Who, Meaning]] = {
    Authorization.NONE:      dict.fromkeys(Who, _YES),
    Authorization.REQUEST:   dict.fromkeys(Who, _YES),
    Authorization.NAMESPACE: {Who.MESH: _YES, Who.TWIN: _YES, Who.OTHER_ACCOUNT: _YES,
                              Who.OTHER_NAMESPACE: _DENIED, Who.PLAINTEXT: _DENIED},
    Authorization.FINE:      {Who.MESH: _YES, Who.TWIN: _YES, Who.OTHER_ACCOUNT: _DENIED,
                              Who.OTHER_NAMESPACE: _DENIED, Who.PLAINTEXT: _DENIED},
}
"""What authorization makes of an admitted caller with the allowed request."""

_FINE: Mapping[What, Meaning] = {
    What.ALLOWED: _YES, What.OTHER_METHOD: _DENIED, What.OTHER_PATH: _DENIED, What.OTHER_HEADER: _DENIED,
    What.OTHER_CLAIM: _DENIED, What.NO_TOKEN: _DENIED, What.EXPIRED_TOKEN: _TOKEN, What.FORGED_TOKEN: _TOKEN,
}
VARIANT: Mapping[Authorization, Mapping[What, Meaning]] = {
    Authorization.NONE:      {What.ALLOWED: _YES},
    Authorization.NAMESPACE: {What.ALLOWED: _YES},
    Authorization.FINE:      _FINE,
    Authorization.REQUEST:   _FINE,
}
"""What authorization makes of a request by the allowed caller. A posture that reads only the caller is
asked nothing but the allowed request: what a service answers to another one is up to the service."""
# fmt: on

TOKEN_VARIANTS = frozenset({What.OTHER_CLAIM, What.NO_TOKEN, What.EXPIRED_TOKEN, What.FORGED_TOKEN})
"""The requests that only a mesh with JWT authentication can tell from the allowed one."""


def meaning_of(posture: Posture, who: Who, what: What) -> Meaning:
    """What has to come of this call. `posture.mtls` is None without a mesh: everything is answered."""
    if posture.mtls is None:
        return Meaning.ANSWERED if who in (Who.MESH, Who.PLAINTEXT) else Meaning.NO_TLS
    verdicts = (
        PEER[posture.mtls][who],
        VARIANT[posture.authorization][what] if what in _TOKEN_FIRST else Meaning.ANSWERED,
        CALLER[posture.authorization].get(who, Meaning.ANSWERED),
        VARIANT[posture.authorization][what],
    )
    return next((verdict for verdict in verdicts if verdict is not Meaning.ANSWERED), Meaning.ANSWERED)


_TOKEN_FIRST = (What.EXPIRED_TOKEN, What.FORGED_TOKEN)
"""A token that is present and not valid is refused before anyone asks who the caller is."""


def expectations(posture: Posture, layer: Layer = Layer.L7) -> tuple[Expectation, ...]:
    """The rows of a posture that are proven before a trial: the allowed request by every caller, then
    every broken request by the client through its sidecar. The allowed call comes first. At L4 there is
    nothing in a request that could be broken: `fine` is what it makes of the callers."""
    if posture.mtls is None:
        callers: tuple[Who, ...] = (Who.MESH, Who.PLAINTEXT)
    else:
        callers = tuple(Who)
    by_caller = [(who, What.ALLOWED) for who in callers]
    variants = VARIANT[posture.authorization] if layer is Layer.L7 else {}
    by_request = [(Who.MESH, what) for what in variants if what is not What.ALLOWED]
    return tuple(
        Expectation(who, what, meaning_of(posture, who, what)) for who, what in [*by_caller, *by_request]
    )
