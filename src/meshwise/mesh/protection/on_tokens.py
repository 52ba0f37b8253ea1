"""Attempts of the client itself, through its sidecar, with a token that should not do."""

from __future__ import annotations

from meshwise.mesh.protection.attempt import BY_REQUEST, NEVER, Attempt, Documented, both
from meshwise.mesh.protection.tokens import Token, WithToken

_JWT = "istio.io/latest/docs/reference/config/security/jwt/"
_NONE = "linkerd.io/2-edge/reference/authorization-policy/ (no authentication by token)"


def _token(key: str, how: str, token: Token) -> Attempt:
    return Attempt(
        key,
        "the allowed client",
        "through its sidecar",
        how,
        "no answer of the service",
        WithToken(token),
        both(Documented(BY_REQUEST, _JWT), Documented(NEVER, _NONE)),
    )


ATTEMPTS = (
    _token("token-none", "sends no token", Token.NONE),
    _token("token-expired", "sends a token that ended an hour ago", Token.EXPIRED),
    _token("token-not-yet-valid", "sends a token that begins in two weeks", Token.NOT_YET_VALID),
    _token("token-forged", "sends a token signed by another key under the issuer's key id", Token.FORGED),
    _token("token-altered", "sends a token whose claim was changed under its signature", Token.ALTERED),
    _token("token-other-claim", "sends a good token with another role", Token.OTHER_CLAIM),
    _token(
        "token-wrong-audience", "sends a good token that was made for another service", Token.OTHER_AUDIENCE
    ),
    _token("token-other-issuer", "sends a token that names another issuer", Token.OTHER_ISSUER),
    _token("token-alg-none", "sends a token with `alg: none` and no signature", Token.UNSIGNED),
    _token(
        "token-key-confusion",
        "sends a token with `alg: HS256`, signed with the issuer's public key as the secret",
        Token.KEY_CONFUSION,
    ),
)
