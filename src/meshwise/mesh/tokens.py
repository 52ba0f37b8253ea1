"""JSON Web Tokens for the claim rule of `strict+fine`: RS256 tokens and the key set that verifies them.

Rules of this file:
- One issuer per process, because every mesh's requests carry the same bytes, whatever the posture reads.
- Tokens outlive any study (`VALID_FOR_S`), so that no trial measures an expiry.
- RFC 7515 (JWS), 7517 (JWK), 7518 (RS256), 7519 (claims).
"""

from __future__ import annotations

import base64
import functools
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ISSUER = "https://issuer.meshwise.example"
SUBJECT = "checkout"
CLAIM = "role"
ROLE = "caller"
OTHER_ROLE = "reader"
VALID_FOR_S = 30 * 24 * 3600

_KEY_ID = "meshwise"


@dataclass(frozen=True)
class Tokens:
    """One of each kind, as they go behind `Bearer `, and the public key set (JSON)."""

    valid: str
    expired: str
    forged: str
    """Signed by another key under the same key id."""
    other_claim: str
    """Valid, but its claim `role` is not the one that is asked for."""
    jwks: str
    attackers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further ones that must not be accepted, by what is wrong with them."""


@functools.cache
def tokens() -> Tokens:
    """This process's tokens; made at the first call (two RSA keys)."""
    return make_tokens(int(time.time()))


def attackers_tokens() -> Mapping[str, str]:
    """All that are not as they should be, by what is wrong with them."""
    own = tokens()
    return {
        "expired": own.expired, "forged": own.forged, "other_claim": own.other_claim, **own.attackers,
    }  # fmt: skip


def make_tokens(now_s: int) -> Tokens:
    """`now_s`: seconds since the epoch."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    foreign_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    claims = {
        "iss": ISSUER, "sub": SUBJECT, CLAIM: ROLE, "iat": now_s - 60, "exp": now_s + VALID_FOR_S,
    }  # fmt: skip
    return Tokens(
        valid=sign(claims, key),
        expired=sign({**claims, "iat": now_s - 7200, "exp": now_s - 3600}, key),
        forged=sign(claims, foreign_key),
        other_claim=sign({**claims, CLAIM: OTHER_ROLE}, key),
        jwks=key_set(key.public_key()),
        attackers=_broken(claims, key, now_s),
    )


def _broken(claims: dict[str, Any], key: rsa.RSAPrivateKey, now_s: int) -> dict[str, str]:
    """RFC 8725 section 3 says what is wrong with each of them."""
    valid = sign({**claims, CLAIM: OTHER_ROLE}, key)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    confused = f"{_encode_json({'alg': 'HS256', 'kid': _KEY_ID, 'typ': 'JWT'})}.{_encode_json(claims)}"
    return {
        "not_yet_valid": sign({**claims, "nbf": now_s + VALID_FOR_S // 2}, key),
        "altered": f"{valid.split('.')[0]}.{_encode_json(claims)}.{valid.split('.')[2]}",
        "other_audience": sign({**claims, "aud": "https://other.example"}, key),
        "other_issuer": sign({**claims, "iss": "https://elsewhere.example"}, key),
        "unsigned": f"{_encode_json({'alg': 'none', 'kid': _KEY_ID, 'typ': 'JWT'})}.{_encode_json(claims)}.",
        "key_confusion": f"{confused}.{_encode(hmac.digest(public, confused.encode(), 'sha256'))}",
    }


def sign(claims: dict[str, Any], key: rsa.RSAPrivateKey) -> str:
    head = {"alg": "RS256", "kid": _KEY_ID, "typ": "JWT"}
    signed = f"{_encode_json(head)}.{_encode_json(claims)}"
    return f"{signed}.{_encode(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def key_set(key: rsa.RSAPublicKey) -> str:
    numbers = key.public_numbers()
    return json.dumps(
        {
            "keys": [
                {
                    "kty": "RSA", "use": "sig", "alg": "RS256", "kid": _KEY_ID,
                    "n": _encode_number(numbers.n), "e": _encode_number(numbers.e),
                }
            ]
        },
        separators=(",", ":"),
    )  # fmt: skip


def verify(token: str, jwks: str, now_s: float) -> dict[str, Any] | None:
    """The claims of a token that a key of the set has signed and that has not expired, else None."""
    try:
        head, body, signature = token.split(".")
        claims: dict[str, Any] = json.loads(_decode(body))
        kid = json.loads(_decode(head)).get("kid")
    except ValueError:
        return None
    for entry in json.loads(jwks)["keys"]:
        numbers = (int.from_bytes(_decode(entry[part]), "big") for part in ("e", "n"))
        try:
            rsa.RSAPublicNumbers(*numbers).public_key().verify(
                _decode(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except InvalidSignature:
            continue
        return claims if entry.get("kid") == kid and claims.get("exp", 0) > now_s else None
    return None


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encode_json(value: object) -> str:
    return _encode(json.dumps(value, separators=(",", ":")).encode())


def _encode_number(number: int) -> str:
    return _encode(number.to_bytes((number.bit_length() + 7) // 8, "big"))
