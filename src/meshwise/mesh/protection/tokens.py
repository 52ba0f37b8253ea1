"""Tokens that no issuer would give, as attempts of a client that is otherwise allowed.

RFC 8725 (JSON Web Token best current practices) names most of them: `alg: none` and key confusion in its
section 3.1, issuer in 3.8, audience in 3.9.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from meshwise.mesh import tokens
from meshwise.mesh.protection.attempt import AttackStep, Seen
from meshwise.mesh.protection.calls import judged, some_size
from meshwise.mesh.protection.scene import Scene


class Token(StrEnum):
    """What is sent instead of the valid token."""

    NONE = "none"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    FORGED = "forged"
    ALTERED = "altered"
    """The claim is changed and the signature kept."""
    OTHER_CLAIM = "other_claim"
    OTHER_AUDIENCE = "other_audience"
    OTHER_ISSUER = "other_issuer"
    UNSIGNED = "unsigned"
    """`alg: none` and an empty signature."""
    KEY_CONFUSION = "key_confusion"
    """`alg: HS256`, signed with the public key as the secret."""


@dataclass(frozen=True)
class WithToken(AttackStep):
    """The client asks through its sidecar, with all that is demanded but for the token."""

    token: Token

    def carry_out(self, scene: Scene) -> Seen:
        size = some_size()
        request = scene.request(size)
        fields = tuple(field for field in request.headers if field[0] != "authorization")
        if self.token is not Token.NONE:
            value = tokens.attackers_tokens()[str(self.token)]
            fields = (("authorization", f"Bearer {value}"), *fields)
        return judged(scene, scene.through_sidecar(replace(request, headers=fields)), size)
