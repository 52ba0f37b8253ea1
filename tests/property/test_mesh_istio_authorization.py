"""Whatever the values are, a policy's pattern means what Istio's documentation says it means."""

from __future__ import annotations

import fnmatch
import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from meshwise.mesh.istio import authorization, rbac_walk
from meshwise.mesh.istio.kinds import (
    Action,
    AuthorizationPolicy,
    AuthorizationRule,
    Condition,
    ObjectMeta,
    Scope,
)
from meshwise.mesh.tokens import verify

plain = st.text(alphabet="abz019.-_/+()[]|$^\\ ", min_size=1, max_size=12)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
names = st.text(alphabet="abcxyz019-.", min_size=1, max_size=8)


def facts(**more: object) -> rbac_walk.Facts:
    return rbac_walk.Facts(**{"peer": None, "port": 1, "headers": {}, "path": "", "claims": {}, **more})  # type: ignore[arg-type]


def matches(rule: AuthorizationRule, seen: rbac_walk.Facts) -> bool:
    made = authorization.entry(rule, authorization.Owner("backend", "cluster.local"))
    return rbac_walk.allows({"action": "ALLOW", "policies": {"one": made}}, seen)


@given(plain, plain)
def test_patterns(pattern: str, text: str) -> None:
    def walk(value: str) -> bool:
        return rbac_walk.text_matches(authorization.text_matcher(value), text)

    assert walk(pattern) == (text == pattern)
    assert walk(pattern + "*") == text.startswith(pattern)
    assert walk("*" + pattern) == text.endswith(pattern)
    assert walk("*")


@given(names, names, names, names)
def test_namespace_and_account_are_whole_words(namespace: str, account: str, other: str, wanted: str) -> None:
    peer = f"spiffe://cluster.local/ns/{namespace}/sa/{account}"
    rule = AuthorizationRule(({"namespaces": (wanted,)},), (), ())
    assert matches(rule, facts(peer=peer)) == (wanted == namespace)
    rule = AuthorizationRule(({"serviceAccounts": (f"{namespace}/{other}",)},), (), ())
    assert matches(rule, facts(peer=peer)) == (other == account)
    assert not matches(rule, facts(peer=None))


@given(st.sets(names, max_size=3), st.sets(names, max_size=3), names)
def test_values_and_not_values(values: set[str], not_values: set[str], method: str) -> None:
    fields = {
        **({"methods": tuple(values)} if values else {}),
        **({"notMethods": tuple(not_values)} if not_values else {}),
    }
    wanted = (not values or method in values) and method not in not_values
    assert matches(AuthorizationRule((), (fields,), ()), facts(headers={":method": method})) == wanted


@given(names, names, st.booleans())
def test_claims_match_text_and_lists(wanted: str, found: str, as_list: bool) -> None:
    rule = AuthorizationRule((), (), (Condition("request.auth.claims[a][b]", (wanted,), ()),))
    claims = {"a": {"b": [found, "zz zz"] if as_list else found}}
    assert matches(rule, facts(claims=claims)) == (wanted == found)
    assert not matches(rule, facts(claims={"a": wanted}))


@given(st.text(max_size=60))
def test_no_text_is_a_token_by_chance(text: str) -> None:
    assert verify(text, '{"keys":[]}', 0) is None


# --- what the other fields mean, said without Envoy's matchers ---------------------------------------

segments = st.text(alphabet="ab.-", min_size=1, max_size=3)
paths = st.lists(segments, max_size=4).map(lambda parts: "/" + "/".join(parts))
templates = st.tuples(
    st.lists(st.sampled_from(("a", "b", "{*}")), min_size=1, max_size=3), st.sampled_from(("", "/{**}"))
)


@given(templates, paths)
def test_a_template_takes_segments_one_by_one(template: tuple[list[str], str], path: str) -> None:
    parts, rest = template
    written = "/" + "/".join(parts) + rest
    found = path[1:].split("/")
    fits = len(found) >= len(parts) + bool(rest) if rest else len(found) == len(parts)
    wanted = fits and all(part in ("{*}", given) for part, given in zip(parts, found, strict=False))
    if "{*}" not in written and "{**}" not in written:
        wanted = path == written
    elif "" in found[: len(parts)]:
        wanted = False
    rule = AuthorizationRule((), ({"paths": (written,)},), ())
    assert matches(rule, facts(path=path + "?x=/a/b")) == wanted
    assert matches(AuthorizationRule((), ({"notPaths": (written,)},), ()), facts(path=path)) != wanted


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(addresses, addresses, st.data())
def test_an_address_is_a_block_of_one(address: Address, other: Address, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, address.max_prefixlen))
    block = ipaddress.ip_network(f"{address}/{length}", strict=False)
    fields = {"ipBlocks": "source_ip", "remoteIpBlocks": "remote_ip"}
    keys = {"source.ip": "source_ip", "remote.ip": "remote_ip", "destination.ip": "destination_ip"}
    for seen in (address, other):
        for field, fact in fields.items():
            one, many = (
                AuthorizationRule(({field: (text,)},), (), ())
                for text in (str(address), f"{address}/{length}")
            )
            assert matches(one, facts(**{fact: str(seen)})) == (seen == address)
            assert matches(many, facts(**{fact: str(seen)})) == (seen in block)
        for key, fact in keys.items():
            rule = AuthorizationRule((), (), (Condition(key, (), (f"{address}/{length}",)),))
            assert matches(rule, facts(**{fact: str(seen)})) == (seen not in block)


@given(names, names, names)
def test_an_account_without_a_namespace_is_of_the_policys_own(
    account: str, namespace: str, wanted: str
) -> None:
    peer = f"spiffe://cluster.local/ns/{namespace}/sa/{account}"
    for rule in (
        AuthorizationRule(({"serviceAccounts": (wanted,)},), (), ()),
        AuthorizationRule((), (), (Condition("source.serviceAccount", (wanted,), ()),)),
    ):
        assert matches(rule, facts(peer=peer)) == (account == wanted and namespace == "backend")


@given(names, names, st.sampled_from(("{}", "{}*", "*{}", "*")))
def test_trust_domains(domain: str, wanted: str, shape: str) -> None:
    pattern = shape.format(wanted)
    peer = f"spiffe://{domain}/ns/a/sa/b"
    rule = AuthorizationRule(({"trustDomains": (pattern,)},), (), ())
    assert matches(rule, facts(peer=peer)) == fnmatch.fnmatchcase(domain, pattern)
    assert not matches(rule, facts(peer=None))


@given(names, names, names, names)
def test_a_request_principal_is_issuer_and_subject(issuer: str, subject: str, iss: str, sub: str) -> None:
    claims = {"iss": f"https://{iss}/x", "sub": sub}
    same_issuer, same_subject = issuer == iss, subject == sub

    def says(value: str) -> bool:
        fields = AuthorizationRule(({"requestPrincipals": (value,)},), (), ())
        when = AuthorizationRule((), (), (Condition("request.auth.principal", (value,), ()),))
        found = {matches(rule, facts(claims=claims)) for rule in (fields, when)}
        assert len(found) == 1
        return found.pop()

    assert says(f"https://{issuer}/x/{subject}") == (same_issuer and same_subject)
    assert says(f"https://{issuer}/x/*") == same_issuer
    assert says(f"*/{subject}") == same_subject
    assert says("*")
    assert not matches(AuthorizationRule(({"requestPrincipals": ("*",)},), (), ()), facts())
    plain = AuthorizationRule(({"requestPrincipals": (issuer,)},), (), ())
    assert matches(plain, facts(claims={"iss": iss, "sub": ""})) == same_issuer, "no slash: an issuer"


@given(names, names, st.booleans())
def test_audiences_and_presenters(wanted: str, found: str, as_list: bool) -> None:
    for key, claim in (("request.auth.audiences", "aud"), ("request.auth.presenter", "azp")):
        value = ["zz zz", found] if as_list else found
        rule = AuthorizationRule((), (), (Condition(key, (wanted, "yy yy"), ()),))
        assert matches(rule, facts(claims={claim: value})) == (wanted == found)
        refused = AuthorizationRule((), (), (Condition(key, (), (wanted,)),))
        assert matches(refused, facts(claims={claim: value})) == (wanted != found)
        assert matches(refused, facts())


@given(st.integers(1, 65535), st.integers(1, 65535), names, names)
def test_ports_and_server_names(port: int, wanted: int, name: str, asked: str) -> None:
    rule = AuthorizationRule((), (), (Condition("destination.port", (str(wanted),), ()),))
    assert matches(rule, facts(port=port)) == (port == wanted)
    rule = AuthorizationRule((), (), (Condition("connection.sni", (f"*.{name}",), ()),))
    assert matches(rule, facts(server_name=f"x.{asked}")) == f"x.{asked}".endswith(f".{name}")


@given(st.booleans(), st.booleans())
def test_a_dry_run_refuses_nothing(enforced: bool, tried: bool) -> None:
    def policy(name: str, *, dry_run: bool) -> AuthorizationPolicy:
        return AuthorizationPolicy(
            ObjectMeta(name, "backend"),
            Scope("backend"),
            Action.DENY,
            (AuthorizationRule((), (), ()),),
            dry_run,
        )

    policies = [policy("e", dry_run=False)] * enforced + [policy("t", dry_run=True)] * tried
    filters = authorization.http_filters(policies, "cluster.local")
    assert len(filters) == (enforced or tried)
    for each in filters:
        assert rbac_walk.passes(each["typed_config"], facts()) == (not enforced)
