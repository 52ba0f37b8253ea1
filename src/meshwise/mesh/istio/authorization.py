"""AuthorizationPolicy -> RBAC filters.

Mirrors pilot/pkg/security/authz/builder/builder.go (merge and order), model/model.go (one entry) and
model/generator.go with matcher/ (one field). All policies of one action become one filter; each rule
is one entry, and Envoy scans entries in the order of their names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from meshwise.mesh.istio.resources import Action, AuthorizationPolicy, Condition, Fields, Rule
from meshwise.mesh.istio.view import Json

JWT_FILTER = "envoy.filters.http.jwt_authn"
_HTTP_RBAC = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
_TCP_RBAC = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC"
_ENVOY_ACTION = {Action.ALLOW: "ALLOW", Action.DENY: "DENY", Action.AUDIT: "LOG"}
_ORDER = (Action.AUDIT, Action.DENY, Action.ALLOW)
_NEVER: Json = {
    "permissions": [{"not_rule": {"any": True}}],
    "principals": [{"not_id": {"any": True}}],
}

_HTTP_ONLY = {"requestPrincipals", "hosts", "methods", "paths"}
_HTTP_ONLY_WHEN = ("request.",)


def http_filters(policies: Sequence[AuthorizationPolicy]) -> list[Json]:
    """At most one filter each for AUDIT, DENY and ALLOW, in that order."""
    return [
        {"name": "envoy.filters.http.rbac", "typed_config": {"@type": _HTTP_RBAC, "rules": rules}}
        for rules in _rules_by_action(policies, http=True)
    ]


def tcp_filters(policies: Sequence[AuthorizationPolicy]) -> list[Json]:
    """The same for a chain that reads no HTTP: an ALLOW rule that needs HTTP never matches there, a DENY
    or AUDIT rule loses only what needs HTTP."""
    return [
        {
            "name": "envoy.filters.network.rbac",
            "typed_config": {"@type": _TCP_RBAC, "stat_prefix": "tcp.", "rules": rules},
        }
        for rules in _rules_by_action(policies, http=False)
    ]


def _rules_by_action(policies: Sequence[AuthorizationPolicy], *, http: bool) -> list[Json]:
    return [
        {
            "action": _ENVOY_ACTION[action],
            "policies": dict(
                entry
                for policy in policies
                if policy.action is action
                for entry in _entries(policy, http=http)
            ),
        }
        for action in _ORDER
        if any(policy.action is action for policy in policies)
    ]


def _entries(policy: AuthorizationPolicy, *, http: bool) -> list[tuple[str, Json]]:
    prefix = f"ns[{policy.meta.namespace}]-policy[{policy.meta.name}]"
    if not policy.rules:
        return [(f"{prefix}-rule[0]", _NEVER)]
    entries = []
    for index, rule in enumerate(policy.rules):
        if not http:
            if policy.action is Action.ALLOW and _needs_http(rule):
                continue
            rule = _without_http(rule)
        entries.append((f"{prefix}-rule[{index}]", entry(rule)))
    return entries


def entry(rule: Rule) -> Json:
    """One rule: any `to` and any `from` may match, each with every condition of `when`."""
    permissions = [_permission(operation) for operation in rule.operations or ({},)]
    principals = [_principal(source, rule.when) for source in rule.sources or ({},)]
    return {"permissions": permissions, "principals": principals}


def _permission(operation: Fields) -> Json:
    rules = _demands(operation, _PERMISSIONS, "or_rules", "rules", "not_rule")
    return {"and_rules": {"rules": rules or [{"any": True}]}}


def _principal(source: Fields, when: Sequence[Condition]) -> Json:
    ids = _demands(source, _PRINCIPALS, "or_ids", "ids", "not_id")
    for condition in when:
        make = _condition(condition.key)
        ids += _either(condition.values, make, "or_ids", "ids")
        ids += [{"not_id": each} for each in _either(condition.not_values, make, "or_ids", "ids")]
    return {"and_ids": {"ids": ids or [{"any": True}]}}


Make = Callable[[str], Json]


def _demands(
    fields: Fields, table: Mapping[str, Make], either: str, members: str, negation: str
) -> list[Json]:
    """Every field that is set, in the table's order: `or` of its values, and `not or` of its notValues."""
    demands: list[Json] = []
    for name, make in table.items():
        demands += _either(fields.get(name, ()), make, either, members)
        negated = f"not{name[0].upper()}{name[1:]}"
        demands += [{negation: each} for each in _either(fields.get(negated, ()), make, either, members)]
    return demands


def _either(values: Sequence[str], make: Make, either: str, members: str) -> list[Json]:
    return [{either: {members: [make(value) for value in values]}}] if values else []


# --- one value of one field ----------------------------------------------------------------------


def text_matcher(value: str, prefix: str = "") -> Json:
    """`x`, `x*`, `*x`, `*` as Istio reads them; `prefix` goes before the value (`spiffe://`)."""
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.startswith("*"):
        if prefix:
            return {"safe_regex": {"regex": f"{prefix}.*{re.escape(value[1:])}"}}
        return {"suffix": value[1:]}
    if value.endswith("*"):
        return {"prefix": prefix + value[:-1]}
    return {"exact": prefix + value}


def _authenticated(matcher: Json) -> Json:
    return {"authenticated": {"principal_name": matcher}}


def _peer(value: str) -> Json:
    return _authenticated(text_matcher(value, "spiffe://"))


def _namespace(value: str) -> Json:
    quoted = ".*".join(re.escape(part) for part in value.split("*"))
    return _authenticated({"safe_regex": {"regex": f".*/ns/{quoted}/.*"}})


def _service_account(value: str) -> Json:
    namespace, _, account = value.rpartition("/")
    regex = f"spiffe://.+/ns/{re.escape(namespace)}/(.+/|)sa/{re.escape(account)}(/.+)?"
    return _authenticated({"safe_regex": {"regex": regex}})


def _payload(path: Sequence[str], value: Json) -> Json:
    keys = [{"key": "payload"}, *({"key": key} for key in path)]
    return {"metadata": {"filter": JWT_FILTER, "path": keys, "value": value}}


def _request_principal(value: str) -> Json:
    """`issuer/subject`, split at the last slash."""
    issuer, _, subject = value.rpartition("/")
    if value == "*":
        issuer = "*"
        subject = "*"
    parts = (("iss", issuer), ("sub", subject))
    return {
        "and_ids": {"ids": [_payload([name], {"string_match": text_matcher(part)}) for name, part in parts]}
    }


def _cidr(value: str) -> Json:
    address, _, length = value.partition("/")
    return {"address_prefix": address, "prefix_len": int(length or 32)}


def _header(name: str, value: str, *, ignore_case: bool = False) -> Json:
    if value == "*":
        return {"header": {"name": name, "present_match": True}}
    matcher = text_matcher(value)
    return {
        "header": {"name": name, "string_match": {**matcher, "ignore_case": True} if ignore_case else matcher}
    }


def _condition(key: str) -> Make:
    """The matcher of a `when` key (`resources` has let only these through)."""
    if key == "source.namespace":
        return _namespace
    if key == "source.principal":
        return _peer
    names = re.findall(r"\[([^\[\]]+)\]", key)
    if key.startswith("request.headers["):
        return lambda value: _header(names[0], value)

    def claim(value: str) -> Json:
        one = {"string_match": text_matcher(value)}
        return _payload(names, {"or_match": {"value_matchers": [{"list_match": {"one_of": one}}, one]}})

    return claim


_PERMISSIONS: Mapping[str, Make] = {
    "hosts": lambda value: _header(":authority", value, ignore_case=True),
    "methods": lambda value: _header(":method", value),
    "paths": lambda value: {"url_path": {"path": text_matcher(value)}},
    "ports": lambda value: {"destination_port": int(value)},
}
_PRINCIPALS: Mapping[str, Make] = {
    "principals": _peer,
    "namespaces": _namespace,
    "serviceAccounts": _service_account,
    "requestPrincipals": _request_principal,
    "ipBlocks": lambda value: {"direct_remote_ip": _cidr(value)},
}


# --- chains that read no HTTP ----------------------------------------------------------------------


def _is_http(name: str) -> bool:
    plain = name[3].lower() + name[4:] if name.startswith("not") else name
    return plain in _HTTP_ONLY


def _needs_http(rule: Rule) -> bool:
    fields = [name for each in (*rule.sources, *rule.operations) for name in each]
    return any(map(_is_http, fields)) or any(each.key.startswith(_HTTP_ONLY_WHEN) for each in rule.when)


def _without_http(rule: Rule) -> Rule:
    def strip(fields: Fields) -> Fields:
        return {name: values for name, values in fields.items() if not _is_http(name)}

    return Rule(
        tuple(map(strip, rule.sources)),
        tuple(map(strip, rule.operations)),
        tuple(each for each in rule.when if not each.key.startswith(_HTTP_ONLY_WHEN)),
    )
