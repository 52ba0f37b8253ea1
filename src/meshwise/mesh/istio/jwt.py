"""RequestAuthentication -> jwt_authn.

Mirrors pilot/pkg/security/authn/policy_applier.go. A token that is present must be valid (else 401); a
missing one passes here, and an AuthorizationPolicy that asks for a claim refuses it (403).
"""

from __future__ import annotations

from collections.abc import Sequence

from meshwise.mesh.istio.authorization import JWT_FILTER
from meshwise.mesh.istio.kinds import JwtRule, RequestAuthentication
from meshwise.mesh.istio.view import Json

_CONFIG = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_SPACE_DELIMITED = ("permission", "scope")


def filters(authentications: Sequence[RequestAuthentication]) -> list[Json]:
    """No filter without a rule, else one with all rules, sorted by issuer."""
    rules = sorted(
        (rule for authentication in authentications for rule in authentication.rules),
        key=lambda rule: rule.issuer,
    )
    if not rules:
        return []
    providers = {f"origins-{index}": _provider(rule) for index, rule in enumerate(rules)}
    config: Json = {
        "@type": _CONFIG,
        "providers": providers,
        "rules": [{"match": {"prefix": "/"}, "requires": _requirement(list(providers))}],
        "bypass_cors_preflight": True,
    }
    return [{"name": JWT_FILTER, "typed_config": config}]


def _provider(rule: JwtRule) -> Json:
    provider: Json = {
        "issuer": rule.issuer,
        "local_jwks": {"inline_string": rule.jwks},
        "payload_in_metadata": "payload",
        "normalize_payload_in_metadata": {
            "space_delimited_claims": sorted({*_SPACE_DELIMITED, *rule.space_delimited})
        },
    }
    given: Json = {
        "audiences": list(rule.audiences),
        "forward": rule.forward,
        "from_headers": [_place(name, prefix) for name, prefix in rule.from_headers],
        "from_params": list(rule.from_params),
        "from_cookies": list(rule.from_cookies),
        "forward_payload_header": rule.payload_header,
        "claim_to_headers": [
            {"header_name": header, "claim_name": claim} for header, claim in rule.claim_headers
        ],
    }
    return {**provider, **{name: value for name, value in given.items() if value}}


def _place(name: str, prefix: str) -> Json:
    return {"name": name, "value_prefix": prefix} if prefix else {"name": name}


def _requirement(names: Sequence[str]) -> Json:
    if len(names) == 1:
        return _any([{"provider_name": names[0]}, {"allow_missing": {}}])
    each_or_missing = [_any([{"provider_name": name}, {"allow_missing": {}}]) for name in names]
    everything = {"requires_all": {"requirements": each_or_missing}}
    return _any([*({"provider_name": name} for name in names), everything])


def _any(requirements: list[Json]) -> Json:
    return {"requires_any": {"requirements": requirements}}
