"""Reads AuthorizationPolicy and RequestAuthentication.

What istiod's own check refuses is refused here too, with its reason (MW407); what istiod takes and we do
not translate is refused as beyond (MW402). Mirrors ValidateAuthorizationPolicy and validateJwtRule of
pkg/config/validation/validation.go and pkg/config/security/security.go.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping

from meshwise.mesh.istio.kinds import (
    Action,
    AuthorizationPolicy,
    AuthorizationRule,
    Condition,
    Fields,
    JwtRule,
    ObjectMeta,
    RequestAuthentication,
    Scope,
)
from meshwise.mesh.reading import DocumentNode

Check = Callable[[DocumentNode], None]
"""Raises MW407 for a value that istiod refuses."""

_HEADER_NAME = re.compile(r"[-_A-Za-z0-9]+")
_PATH_SEGMENT = re.compile(r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]+")
_NAMED_KEY = re.compile(r"(request\.headers|request\.auth\.claims)\[.+\]")
_MOST_ACCOUNTS = 16
_LONGEST_ACCOUNT = 320


def scope(meta: ObjectMeta, spec: DocumentNode, name: str = "selector", labels: str = "matchLabels") -> Scope:
    selector = spec.get(name)
    if selector is None:
        return Scope(meta.namespace)
    selector.only(labels)
    wanted = selector.get(labels)
    found = {key: node.text() for key, node in wanted.fields().items()} if wanted else {}
    if any("*" in each for pair in found.items() for each in pair) or "" in found:
        raise selector.refused("a label with `*` or without a name", "name each label in full")
    return Scope(meta.namespace, found)


# --- AuthorizationPolicy -------------------------------------------------------------------------


def authorization_policy(
    meta: ObjectMeta, spec: DocumentNode, dry_run: DocumentNode | None
) -> AuthorizationPolicy:
    spec.only("selector", "action", "rules")
    given, rules = spec.get("action"), spec.get("rules")
    action = given.one_of({str(each): each for each in Action}) if given else Action.ALLOW
    if action is Action.DENY and not (rules and rules.elements()):
        raise spec.refused("a DENY without `rules` never applies", "`rules: [{}]` denies every request")
    return AuthorizationPolicy(
        meta,
        scope(meta, spec),
        action,
        tuple(_rule(node) for node in rules.elements()) if rules else (),
        _dry_run(dry_run, action),
    )


def _dry_run(node: DocumentNode | None, action: Action) -> bool:
    """As Go's strconv.ParseBool reads the annotation."""
    if node is None:
        return False
    words = {True: ("1", "t", "T", "true", "TRUE", "True"), False: ("0", "f", "F", "false", "FALSE", "False")}
    if action is Action.AUDIT:
        raise node.refused("a dry run is for ALLOW and DENY only", "remove the annotation")
    for meaning, spelled in words.items():
        if node.text() in spelled:
            return meaning
    raise node.refused(f"{node.text()!r} is neither true nor false", 'write "true" or "false"')


def _rule(node: DocumentNode) -> AuthorizationRule:
    node.only("from", "to", "when")
    for name in ("from", "to"):
        if (found := node.get(name)) is not None and not found.elements():
            raise found.beyond(found.path, "an empty list lets in everything", [f"no `{name}` at all"])
    return AuthorizationRule(
        tuple(_fields(each, "source", _SOURCE) for each in node.list_of("from")),
        tuple(_fields(each, "operation", _OPERATION) for each in node.list_of("to")),
        tuple(_condition(each) for each in node.list_of("when")),
    )


def _fields(node: DocumentNode, name: str, checks: Mapping[str, Check]) -> Fields:
    node.only(name)
    inner = node.need(name)
    inner.only(*checks, *map(_negated, checks))
    found = {}
    for key, values in inner.fields().items():
        check = checks[key if key in checks else key[3].lower() + key[4:]]
        for each in values.elements():
            check(each)
        found[key] = values.texts()
    if not any(found.values()):
        raise inner.refused("nothing is asked for", f"leave `{name}` out, or name what it is to match")
    _accounts_alone(inner, found)
    return found


def _negated(name: str) -> str:
    return f"not{name[0].upper()}{name[1:]}"


def _accounts_alone(node: DocumentNode, found: Fields) -> None:
    accounts = [*found.get("serviceAccounts", ()), *found.get("notServiceAccounts", ())]
    beside = ("principals", "notPrincipals", "namespaces", "notNamespaces")
    if accounts and any(found.get(name) for name in beside):
        raise node.refused(
            "serviceAccounts beside namespaces or principals", "name the namespace with the account"
        )
    if len(accounts) > _MOST_ACCOUNTS and any(
        len(found.get(name, ())) > _MOST_ACCOUNTS for name in ("serviceAccounts", "notServiceAccounts")
    ):
        raise node.refused(f"more than {_MOST_ACCOUNTS} service accounts", "write several `from` entries")


# --- one value of one field ------------------------------------------------------------------------


def _not_empty(node: DocumentNode) -> None:
    if not node.text():
        raise node.refused("an empty value", "remove it")


def _address(node: DocumentNode) -> None:
    try:
        ipaddress.ip_interface(node.text())
    except ValueError as error:
        raise node.refused(str(error), "write an address, or a block as in 10.1.0.0/16") from error
    length = node.text().partition("/")[2]
    if not length.isdecimal() and "/" in node.text():
        raise node.refused(f"{length} is not a length of a prefix", "write it as in 10.1.0.0/16")


def _port(node: DocumentNode) -> None:
    text = node.text()
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise node.refused(f"{text!r} is not a port", "write a number up to 65535, in quotes")


def _wildcard(node: DocumentNode) -> None:
    _not_empty(node)
    text = node.text()
    if "*" in text[1:-1] or text.count("*") > 1:
        raise node.refused("`*` stands only at one end", "write `x`, `x*`, `*x` or `*`")


def _trust_domain(node: DocumentNode) -> None:
    _wildcard(node)
    if "/" in node.text():
        raise node.refused("a trust domain has no `/`", "for more than the trust domain use `principals`")


def _account(node: DocumentNode) -> None:
    text = node.text()
    namespace, slash, account = text.partition("/")
    named = account if slash else namespace
    if not named or not namespace or "*" in text or "/" in account or len(text) > _LONGEST_ACCOUNT:
        raise node.refused(f"{text!r} is not an account", "write `account` or `namespace/account`")


def _path(node: DocumentNode) -> None:
    """`{*}` is one segment and `{**}`, at the end, any number; a path with neither is read as written."""
    _not_empty(node)
    text = node.text()
    template = "{*}" in text or "{**}" in text
    if template and (not text.startswith("/") or "//" in text):
        # istiod lets these in, and Envoy 1.40 ends with an assertion when it reads them.
        raise node.beyond(text, "Envoy takes no such template", ("a template that begins with one `/`",))
    rest = False
    for segment in text.strip("/").split("/"):
        if segment in ("{*}", "{**}"):
            if rest:
                raise node.refused("`{**}` is not at the end", "put it last")
            rest = segment == "{**}"
        elif "{" in segment or "}" in segment:
            raise node.refused("braces other than `{*}` and `{**}`", "a template is a whole segment")
        elif template and not _PATH_SEGMENT.fullmatch(segment):
            raise node.refused(f"{segment!r} cannot stand in a template", "write plain segments beside it")


_SOURCE: Mapping[str, Check] = {
    "principals": _not_empty,
    "requestPrincipals": _not_empty,
    "serviceAccounts": _account,
    "trustDomains": _trust_domain,
    "namespaces": _not_empty,
    "remoteIpBlocks": _address,
    "ipBlocks": _address,
}
_OPERATION: Mapping[str, Check] = {
    "hosts": _not_empty, "methods": _not_empty, "paths": _path, "ports": _port,
}  # fmt: skip
_WHEN: Mapping[str, Check] = {
    "source.ip": _address,
    "remote.ip": _address,
    "source.namespace": _not_empty,
    "source.principal": _not_empty,
    "source.serviceAccount": _account,
    "source.trustDomain": _wildcard,
    "destination.ip": _address,
    "destination.port": _port,
    "connection.sni": _not_empty,
    "request.auth.principal": _not_empty,
    "request.auth.audiences": _not_empty,
    "request.auth.presenter": _not_empty,
}
_WHEN_NAMED = ("request.headers[NAME]", "request.auth.claims[NAME]")


def _condition(node: DocumentNode) -> Condition:
    node.only("key", "values", "notValues")
    key = node.need("key")
    check = _WHEN.get(key.text(), _not_empty)
    if key.text() not in _WHEN and not _NAMED_KEY.fullmatch(key.text()):
        raise key.beyond(key.text(), "this condition is not translated", [*_WHEN, *_WHEN_NAMED])
    lists = [node.get(name) for name in ("values", "notValues")]
    for each in (each for found in lists if found for each in found.elements()):
        check(each)
    values, not_values = (found.texts() if found else () for found in lists)
    if not values and not not_values:
        raise node.refused("neither values nor notValues", "say which values it is to match")
    return Condition(key.text(), values, not_values)


# --- RequestAuthentication ---------------------------------------------------------------------------


def request_authentication(meta: ObjectMeta, spec: DocumentNode) -> RequestAuthentication:
    spec.only("selector", "jwtRules")
    return RequestAuthentication(
        meta, scope(meta, spec), tuple(_jwt_rule(each) for each in spec.list_of("jwtRules"))
    )


def _jwt_rule(node: DocumentNode) -> JwtRule:
    node.only(
        "issuer", "audiences", "jwks", "forwardOriginalToken", "fromHeaders", "fromParams", "fromCookies",
        "outputPayloadToHeader", "outputClaimToHeaders", "spaceDelimitedClaims",
    )  # fmt: skip
    forward, payload = node.get("forwardOriginalToken"), node.get("outputPayloadToHeader")
    _not_empty(node.need("issuer"))
    return JwtRule(
        node.need("issuer").text(),
        _texts(node, "audiences"),
        _key_set(node.need("jwks")),
        forward.flag() if forward else False,
        from_headers=tuple(_header(each) for each in node.list_of("fromHeaders")),
        from_params=_texts(node, "fromParams"),
        from_cookies=_texts(node, "fromCookies"),
        payload_header=payload.text() or None if payload else None,
        claim_headers=tuple(_claim_header(each) for each in node.list_of("outputClaimToHeaders")),
        space_delimited=_texts(node, "spaceDelimitedClaims"),
    )


def _texts(node: DocumentNode, name: str) -> tuple[str, ...]:
    for each in node.list_of(name):
        _not_empty(each)
    return tuple(each.text() for each in node.list_of(name))


def _header(node: DocumentNode) -> tuple[str, str]:
    node.only("name", "prefix")
    name, prefix = node.need("name"), node.get("prefix")
    _not_empty(name)
    return name.text(), prefix.text() if prefix else ""


def _claim_header(node: DocumentNode) -> tuple[str, str]:
    node.only("header", "claim")
    header, claim = node.need("header"), node.need("claim")
    _not_empty(claim)
    if not _HEADER_NAME.fullmatch(header.text()):
        raise header.refused(f"{header.text()!r} is not the name of a header", "use letters, digits, - and _")
    return header.text(), claim.text()


def _key_set(node: DocumentNode) -> str:
    try:
        found = json.loads(node.text())
    except ValueError as error:
        raise node.refused(f"not JSON ({error})", "paste the key set as the issuer serves it") from error
    keys = found.get("keys", [found]) if isinstance(found, dict) else None
    if not isinstance(keys, list) or not all(map(_is_key, keys)):
        raise node.refused("neither a key nor a set of keys", "paste the key set as the issuer serves it")
    return node.text()


_KEY_PARTS = {"RSA": {"n", "e"}, "EC": {"crv", "x", "y"}, "OKP": {"crv", "x"}, "oct": {"k"}}
"""What a key of each type has to have (RFC 7518, RFC 8037)."""


def _is_key(key: object) -> bool:
    return isinstance(key, dict) and _KEY_PARTS.get(str(key.get("kty")), {"kty of ours"}) <= key.keys()
