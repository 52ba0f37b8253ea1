"""AuthorizationPolicy -> RBAC filters.

Mirrors pilot/pkg/security/authz/builder/builder.go (merge and order), model/model.go (one entry) and
model/generator.go with matcher/ (one field). All policies of one action become one filter; each rule
is one entry, and Envoy scans entries in the order of their names. Policies of a dry run are that filter's
shadow rules: judged and counted, not enforced.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from meshwise.mesh.istio.kinds import Action, AuthorizationPolicy, AuthorizationRule, Condition, Fields
from meshwise.mesh.istio.view import Json

JWT_FILTER = "envoy.filters.http.jwt_authn"
_HTTP_RBAC = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
_TCP_RBAC = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC"
_TEMPLATE = "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
_ENVOY_ACTION = {Action.ALLOW: "ALLOW", Action.DENY: "DENY", Action.AUDIT: "LOG"}
_ORDER = (Action.AUDIT, Action.DENY, Action.ALLOW)
_NEVER: Json = {
    "permissions": [{"not_rule": {"any": True}}],
    "principals": [{"not_id": {"any": True}}],
}
SHADOW_PREFIX = {Action.ALLOW: "istio_dry_run_allow_", Action.DENY: "istio_dry_run_deny_"}
"""Of the statistics and metadata of policies that are only tried."""
_OWN_TRUST_DOMAIN = "cluster.local"
"""In a principal this stands for the mesh's own trust domain, whatever that is called."""

_HTTP_ONLY = {"requestPrincipals", "hosts", "methods", "paths"}
_HTTP_ONLY_WHEN = ("request.",)


@dataclass(frozen=True)
class Owner:
    """What a rule's values are read by: the namespace of its policy and the mesh's trust domain."""

    namespace: str
    trust_domain: str


def http_filters(policies: Sequence[AuthorizationPolicy], trust_domain: str) -> list[Json]:
    """At most one filter each for AUDIT, DENY and ALLOW, in that order."""
    return [
        {"name": "envoy.filters.http.rbac", "typed_config": {"@type": _HTTP_RBAC, **rules}}
        for rules in _rules_by_action(policies, trust_domain, http=True)
    ]


def tcp_filters(policies: Sequence[AuthorizationPolicy], trust_domain: str) -> list[Json]:
    """The same for a chain that reads no HTTP: an ALLOW rule that needs HTTP never matches there, a DENY
    or AUDIT rule loses only what needs HTTP."""
    return [
        {
            "name": "envoy.filters.network.rbac",
            "typed_config": {"@type": _TCP_RBAC, "stat_prefix": "tcp.", **rules},
        }
        for rules in _rules_by_action(policies, trust_domain, http=False)
    ]


def _rules_by_action(policies: Sequence[AuthorizationPolicy], trust_domain: str, *, http: bool) -> list[Json]:
    found = []
    for action in _ORDER:
        rules: Json = {}
        for name, dry_run in (("rules", False), ("shadow_rules", True)):
            chosen = [each for each in policies if each.action is action and each.dry_run is dry_run]
            if chosen:
                entries = (entry for policy in chosen for entry in _entries(policy, trust_domain, http=http))
                rules[name] = {"action": _ENVOY_ACTION[action], "policies": dict(entries)}
        if rules:
            # istiod gives a filter without shadow rules the prefix of ALLOW, whatever its action.
            prefix_of = action if "shadow_rules" in rules else Action.ALLOW
            rules["shadow_rules_stat_prefix"] = SHADOW_PREFIX[prefix_of]
            found.append(rules)
    return found


def _entries(policy: AuthorizationPolicy, trust_domain: str, *, http: bool) -> list[tuple[str, Json]]:
    owner = Owner(policy.meta.namespace, trust_domain)
    prefix = f"ns[{policy.meta.namespace}]-policy[{policy.meta.name}]"
    if not policy.rules:
        return [(f"{prefix}-rule[0]", _NEVER)]
    entries = []
    for index, rule in enumerate(policy.rules):
        if not http:
            if policy.action is Action.ALLOW and _needs_http(rule):
                continue
            rule = _without_http(rule)
        entries.append((f"{prefix}-rule[{index}]", entry(rule, owner)))
    return entries


def entry(rule: AuthorizationRule, owner: Owner) -> Json:
    """One rule: any `to` and any `from` may match, each with every condition of `when`."""
    permissions = _demands_of_conditions(rule.when, _PERMISSION_WHEN, "not_rule", owner)
    principals = _demands_of_conditions(rule.when, _PRINCIPAL_WHEN, "not_id", owner)
    return {
        "permissions": [
            {"and_rules": {"rules": [*_demands(to, _PERMISSIONS, "not_rule", owner), *permissions] or [_ANY]}}
            for to in rule.operations or ({},)
        ],
        "principals": [
            {"and_ids": {"ids": [*_demands(source, _PRINCIPALS, "not_id", owner), *principals] or [_ANY]}}
            for source in rule.sources or ({},)
        ],
    }


_ANY: Json = {"any": True}
Matcher = Callable[[str, Owner], Json]
"""What one value becomes."""
Matchers = Callable[[Sequence[str], Owner], Json]
"""What all values of one field become together: any of them may match."""


def _demands(fields: Fields, table: Mapping[str, Matchers], negation: str, owner: Owner) -> list[Json]:
    """Every field that is set, in the table's order: any of its values, and none of its notValues."""
    demands: list[Json] = []
    for name, make in table.items():
        negated = fields.get(f"not{name[0].upper()}{name[1:]}", ())
        demands += _both(fields.get(name, ()), negated, make, negation, owner)
    return demands


def _demands_of_conditions(
    when: Sequence[Condition], table: Mapping[str, Matchers], negation: str, owner: Owner
) -> list[Json]:
    """Those conditions that this side (permissions or principals) judges."""
    demands: list[Json] = []
    for each in when:
        make = table.get(each.key) or (_named(each.key) if negation == "not_id" else None)
        if make:
            demands += _both(each.values, each.not_values, make, negation, owner)
    return demands


def _both(
    values: Sequence[str], not_values: Sequence[str], make: Matchers, negation: str, owner: Owner
) -> list[Json]:
    found = [make(values, owner)] if values else []
    return [*found, {negation: make(not_values, owner)}] if not_values else found


def _rules(make: Matcher) -> Matchers:
    return lambda values, owner: {"or_rules": {"rules": [make(value, owner) for value in values]}}


def _ids(make: Matcher) -> Matchers:
    return lambda values, owner: {"or_ids": {"ids": [make(value, owner) for value in values]}}


# --- text ------------------------------------------------------------------------------------------


def text_matcher(value: str, prefix: str = "") -> Json:
    """`x`, `x*`, `*x`, `*` as Istio reads them; `prefix` goes before the value (`spiffe://`)."""
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.startswith("*"):
        if prefix:
            return {"safe_regex": {"regex": f"{prefix}.*{quoted(value[1:])}"}}
        return {"suffix": value[1:]}
    if value.endswith("*"):
        return {"prefix": prefix + value[:-1]}
    return {"exact": prefix + value}


def quoted(text: str) -> str:
    """As regexp.QuoteMeta of Go; Python's own escapes more than RE2 need read."""
    return re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", text)


def _string(value: str) -> Json:
    return {"string_match": text_matcher(value)}


# --- who calls -------------------------------------------------------------------------------------


def _authenticated(matcher: Json) -> Json:
    return {"authenticated": {"principal_name": matcher}}


def _peer(value: str, owner: Owner) -> Json:
    domain, _, rest = value.partition("/")
    if domain == _OWN_TRUST_DOMAIN and rest.count("/") == 3:
        value = f"{owner.trust_domain}/{rest}"
    return _authenticated(text_matcher(value, "spiffe://"))


def _namespace(value: str, _: Owner) -> Json:
    pattern = ".*".join(quoted(part) for part in value.split("*"))
    return _authenticated({"safe_regex": {"regex": f".*/ns/{pattern}/.*"}})


def _service_account(value: str, owner: Owner) -> Json:
    """`namespace/account`, or an account of the policy's own namespace."""
    namespace, slash, account = value.partition("/")
    if not slash:
        namespace, account = owner.namespace, value
    regex = f"spiffe://.+/ns/{quoted(namespace)}/(.+/|)sa/{quoted(account)}(/.+)?"
    return _authenticated({"safe_regex": {"regex": regex}})


def _trust_domain(value: str, _: Owner) -> Json:
    if value == "*":
        return _authenticated({"prefix": "spiffe://"})
    before, star, after = value.partition("*")
    if not star:
        return _authenticated({"prefix": f"spiffe://{value}/"})
    regex = f"spiffe://{quoted(before)}[^/]*{quoted(after)}/.*"
    return _authenticated({"safe_regex": {"regex": regex}})


def cidr(value: str) -> Json:
    """An address, which is a block of one, or a block."""
    block = ipaddress.ip_interface(value)
    return {"address_prefix": str(block.ip), "prefix_len": block.network.prefixlen}


# --- what the token says ------------------------------------------------------------------------------


def _payload(path: Sequence[str], value: Json) -> Json:
    keys = [{"key": "payload"}, *({"key": key} for key in path)]
    return {"metadata": {"filter": JWT_FILTER, "path": keys, "value": value}}


def _request_principals(values: Sequence[str], _: Owner) -> Json:
    found = [_request_principal(value) for value in values]
    return found[0] if len(found) == 1 else {"or_ids": {"ids": found}}


def _request_principal(value: str) -> Json:
    """`issuer/subject`, split at the last slash; one `*` at either end."""
    issuer, slash, subject = value.rpartition("/")
    exact_issuer, exact_subject = {"exact": issuer}, {"exact": subject}
    any_text = text_matcher("*")
    if value == "*":
        parts = (any_text, any_text)
    elif value.startswith("*"):
        parts = (text_matcher(issuer), exact_subject) if slash else (any_text, text_matcher(value))
    elif value.endswith("*"):
        prefix = any_text if subject == "*" else {"prefix": subject[:-1]}
        parts = (exact_issuer, prefix) if slash else (text_matcher(value), any_text)
    else:
        parts = (exact_issuer, exact_subject) if slash else ({"exact": value}, {"exact": ""})
    named = zip(("iss", "sub"), parts, strict=True)
    return {"and_ids": {"ids": [_payload([name], {"string_match": part}) for name, part in named]}}


def _claims(names: Sequence[str]) -> Matchers:
    """A claim that is one of these texts, or a list with one of them."""

    def make(values: Sequence[str], _: Owner) -> Json:
        texts = [_string(value) for value in values]
        one = texts[0] if len(texts) == 1 else {"or_match": {"value_matchers": texts}}
        return _payload(names, {"or_match": {"value_matchers": [{"list_match": {"one_of": one}}, one]}})

    return make


# --- what is asked for ----------------------------------------------------------------------------------


def _header(name: str, value: str, *, ignore_case: bool = False) -> Json:
    if value == "*":
        return {"header": {"name": name, "present_match": True}}
    matcher = text_matcher(value)
    return {
        "header": {"name": name, "string_match": {**matcher, "ignore_case": True} if ignore_case else matcher}
    }


def _path(value: str, _: Owner) -> Json:
    """A path or a template: `{*}` is one segment, `{**}` any number of them."""
    if "{*}" not in value and "{**}" not in value:
        return {"url_path": {"path": text_matcher(value)}}
    template = value.replace("{*}", "*").replace("{**}", "**")
    config = {"@type": _TEMPLATE, "path_template": template}
    return {"uri_template": {"name": "uri-template", "typed_config": config}}


def _named(key: str) -> Matchers | None:
    """A `when` key that names a header or a claim in brackets; `read_policies` lets only these through."""
    if key.startswith("request.headers"):
        name = key.removeprefix("request.headers")[1:-1]
        return _ids(lambda value, _: _header(name, value))
    if key.startswith("request.auth.claims"):
        named = key.removeprefix("request.auth.claims")
        nested = re.fullmatch(r"(\[[^\[\]]*\])+", named)
        return _claims(re.findall(r"\[([^\[\]]*)\]", named) if nested else [named[1:-1]])
    return None


_ports = _rules(lambda value, _: {"destination_port": int(value)})
_PERMISSIONS: Mapping[str, Matchers] = {
    "hosts": _rules(lambda value, _: _header(":authority", value, ignore_case=True)),
    "methods": _rules(lambda value, _: _header(":method", value)),
    "paths": _rules(_path),
    "ports": _ports,
}
_PRINCIPALS: Mapping[str, Matchers] = {
    "principals": _ids(_peer),
    "requestPrincipals": _request_principals,
    "serviceAccounts": _ids(_service_account),
    "trustDomains": _ids(_trust_domain),
    "namespaces": _ids(_namespace),
    "remoteIpBlocks": _ids(lambda value, _: {"remote_ip": cidr(value)}),
    "ipBlocks": _ids(lambda value, _: {"direct_remote_ip": cidr(value)}),
}
_PERMISSION_WHEN: Mapping[str, Matchers] = {
    "destination.ip": _rules(lambda value, _: {"destination_ip": cidr(value)}),
    "destination.port": _ports,
    "connection.sni": _rules(lambda value, _: {"requested_server_name": text_matcher(value)}),
}
_PRINCIPAL_WHEN: Mapping[str, Matchers] = {
    "source.ip": _PRINCIPALS["ipBlocks"],
    "remote.ip": _PRINCIPALS["remoteIpBlocks"],
    "source.namespace": _PRINCIPALS["namespaces"],
    "source.trustDomain": _PRINCIPALS["trustDomains"],
    "source.serviceAccount": _PRINCIPALS["serviceAccounts"],
    "source.principal": _PRINCIPALS["principals"],
    "request.auth.principal": _request_principals,
    "request.auth.audiences": _claims(["aud"]),
    "request.auth.presenter": _claims(["azp"]),
}


# --- chains that read no HTTP ----------------------------------------------------------------------


def _is_http(name: str) -> bool:
    plain = name[3].lower() + name[4:] if name.startswith("not") else name
    return plain in _HTTP_ONLY


def _needs_http(rule: AuthorizationRule) -> bool:
    fields = [name for each in (*rule.sources, *rule.operations) for name in each if each[name]]
    return any(map(_is_http, fields)) or any(each.key.startswith(_HTTP_ONLY_WHEN) for each in rule.when)


def _without_http(rule: AuthorizationRule) -> AuthorizationRule:
    def strip(fields: Fields) -> Fields:
        return {name: values for name, values in fields.items() if not _is_http(name)}

    return AuthorizationRule(
        tuple(map(strip, rule.sources)),
        tuple(map(strip, rule.operations)),
        tuple(each for each in rule.when if not each.key.startswith(_HTTP_ONLY_WHEN)),
    )
