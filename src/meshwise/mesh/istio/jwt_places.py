"""Where a request carries tokens for one issuer, as Envoy looks for them; for the simulation.

Mirrors source/extensions/filters/http/jwt_authn/extractor.cc: the places that a provider names, or without
any the header `authorization` after `Bearer ` and the parameter `access_token`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qs

from meshwise.mesh.istio.view import Json

_DEFAULT_HEADERS = ({"name": "authorization", "value_prefix": "Bearer "},)
_DEFAULT_PARAMS = ("access_token",)
_TOKEN = re.compile(r"[A-Za-z0-9_.\-]*")


def tokens(provider: Json, path: str, headers: Mapping[str, str]) -> list[str]:
    """Every token of the request that this provider would have to judge."""
    own = any(name in provider for name in ("from_headers", "from_params", "from_cookies"))
    places = provider.get("from_headers", () if own else _DEFAULT_HEADERS)
    values = {name.lower(): value for name, value in headers.items()}
    found = [_after(values[name], place) for place in places if (name := place["name"].lower()) in values]
    query = parse_qs(path.partition("?")[2])
    for name in provider.get("from_params", () if own else _DEFAULT_PARAMS):
        found += query.get(name, [])[:1]
    cookies = dict(each.strip().partition("=")[::2] for each in values.get("cookie", "").split(";"))
    found += [cookies[name] for name in provider.get("from_cookies", ()) if name in cookies]
    return [token for token in found if token]


def _after(value: str, place: Mapping[str, str]) -> str:
    """What follows the prefix, up to where it can be no token any more; nothing without the prefix."""
    if not (prefix := place.get("value_prefix", "")):
        return value
    _, there, after = value.partition(prefix)
    found = _TOKEN.match(after) if there else None
    return found[0] if found else ""
