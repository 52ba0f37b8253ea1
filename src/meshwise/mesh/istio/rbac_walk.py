"""Evaluates the RBAC rules that `authorization` writes, as Envoy would; for the simulation.

Mirrors source/extensions/filters/common/rbac (matchers, engine) and the matcher protos. A matcher that
is not known raises: a rule must never be taken for one that matches, or for one that does not.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meshwise.mesh.istio.view import Json

_NO_ADDRESS = "0.0.0.0"


@dataclass(frozen=True)
class Facts:
    """What a filter sees of a request. `peer` is None in plaintext."""

    peer: str | None
    port: int
    headers: Mapping[str, str]
    path: str
    claims: Mapping[str, object]
    source_ip: str = _NO_ADDRESS
    """Of the connection."""
    remote_ip: str = _NO_ADDRESS
    """Of the original caller, as far as the proxy trusts the headers that name it."""
    destination_ip: str = _NO_ADDRESS
    server_name: str = ""
    """Asked for in TLS."""


def passes(config: Json, facts: Facts) -> bool:
    """What a filter of either level does; shadow rules refuse nothing."""
    return "rules" not in config or allows(config["rules"], facts)


def allows(rules: Json, facts: Facts) -> bool:
    matched = any(_policy(policy, facts) for policy in rules["policies"].values())
    return {"ALLOW": matched, "DENY": not matched, "LOG": True}[rules["action"]]


def _policy(policy: Json, facts: Facts) -> bool:
    return any(_matches(each, facts) for each in policy["permissions"]) and any(
        _matches(each, facts) for each in policy["principals"]
    )


def _matches(rule: Json, facts: Facts) -> bool:
    ((kind, value),) = rule.items()
    match kind:
        case "any":
            return True
        case "and_rules":
            return all(_matches(each, facts) for each in value["rules"])
        case "or_rules":
            return any(_matches(each, facts) for each in value["rules"])
        case "and_ids":
            return all(_matches(each, facts) for each in value["ids"])
        case "or_ids":
            return any(_matches(each, facts) for each in value["ids"])
        case "not_rule" | "not_id":
            return not _matches(value, facts)
        case "authenticated":
            return facts.peer is not None and text_matches(value["principal_name"], facts.peer)
        case "header":
            return _header(value, facts)
        case "url_path":
            return text_matches(value["path"], facts.path.partition("?")[0])
        case "uri_template":
            return template_matches(value["typed_config"]["path_template"], facts.path.partition("?")[0])
        case "direct_remote_ip":
            return _within(value, facts.source_ip)
        case "remote_ip":
            return _within(value, facts.remote_ip)
        case "destination_ip":
            return _within(value, facts.destination_ip)
        case "requested_server_name":
            return text_matches(value, facts.server_name)
        case "destination_port":
            return bool(value == facts.port)
        case "metadata":
            found = _walk(facts.claims, [each["key"] for each in value["path"][1:]])
            return found is not None and _value(value["value"], found)
        case _:
            raise ValueError(f"RBAC matcher {kind} is not known")


def _within(block: Json, address: str) -> bool:
    network = ipaddress.ip_network(f"{block['address_prefix']}/{block['prefix_len']}", strict=False)
    return ipaddress.ip_address(address) in network


def template_matches(template: str, path: str) -> bool:
    """`*` is one segment, not an empty one, and `**` what is left, be it nothing
    (source/extensions/path/uri_template_lib/uri_template_internal.cc)."""
    parts = re.split(r"(\*\*|\*)", template)
    meanings = {"*": f"[{_SEGMENT}]+", "**": f"[{_SEGMENT}/]*"}
    pattern = "".join(meanings.get(part) or re.escape(part) for part in parts)
    return re.fullmatch(pattern, path) is not None


_SEGMENT = r"a-zA-Z0-9\-._~%!$&'()*+,;:@="


def _header(matcher: Json, facts: Facts) -> bool:
    found = facts.headers.get(matcher["name"].lower())
    if matcher.get("present_match"):
        return found is not None
    return found is not None and text_matches(matcher["string_match"], found)


def _walk(claims: Mapping[str, object], keys: list[str]) -> object:
    found: Any = claims
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _value(matcher: Json, value: object) -> bool:
    ((kind, inner),) = matcher.items()
    match kind:
        case "string_match":
            return isinstance(value, str) and text_matches(inner, value)
        case "list_match":
            return isinstance(value, list) and any(_value(inner["one_of"], each) for each in value)
        case "or_match":
            return any(_value(each, value) for each in inner["value_matchers"])
        case _:
            raise ValueError(f"value matcher {kind} is not known")


def text_matches(matcher: Json, text: str) -> bool:
    ignore_case = matcher.get("ignore_case", False)
    ((kind, wanted),) = ((key, value) for key, value in matcher.items() if key != "ignore_case")
    if kind == "safe_regex":
        return re.fullmatch(wanted["regex"], text) is not None
    if ignore_case:
        wanted, text = wanted.lower(), text.lower()
    match kind:
        case "exact":
            return bool(text == wanted)
        case "prefix":
            return text.startswith(wanted)
        case "suffix":
            return text.endswith(wanted)
        case _:
            raise ValueError(f"string matcher {kind} is not known")
