"""Whatever the values are, a policy's pattern means what Istio's documentation says it means."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshwise.mesh.istio import authorization, rbac_walk
from meshwise.mesh.istio.resources import Condition, Rule
from meshwise.mesh.tokens import verify

plain = st.text(alphabet="abz019.-_/+()[]|$^\\ ", min_size=1, max_size=12)
names = st.text(alphabet="abcxyz019-.", min_size=1, max_size=8)


def facts(**more: object) -> rbac_walk.Facts:
    return rbac_walk.Facts(**{"peer": None, "port": 1, "headers": {}, "path": "", "claims": {}, **more})  # type: ignore[arg-type]


def matches(rule: Rule, seen: rbac_walk.Facts) -> bool:
    return rbac_walk.allows({"action": "ALLOW", "policies": {"one": authorization.entry(rule)}}, seen)


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
    rule = Rule(({"namespaces": (wanted,)},), (), ())
    assert matches(rule, facts(peer=peer)) == (wanted == namespace)
    rule = Rule(({"serviceAccounts": (f"{namespace}/{other}",)},), (), ())
    assert matches(rule, facts(peer=peer)) == (other == account)
    assert not matches(rule, facts(peer=None))


@given(st.sets(names, max_size=3), st.sets(names, max_size=3), names)
def test_values_and_not_values(values: set[str], not_values: set[str], method: str) -> None:
    fields = {
        **({"methods": tuple(values)} if values else {}),
        **({"notMethods": tuple(not_values)} if not_values else {}),
    }
    wanted = (not values or method in values) and method not in not_values
    assert matches(Rule((), (fields,), ()), facts(headers={":method": method})) == wanted


@given(names, names, st.booleans())
def test_claims_match_text_and_lists(wanted: str, found: str, as_list: bool) -> None:
    rule = Rule((), (), (Condition("request.auth.claims[a][b]", (wanted,), ()),))
    claims = {"a": {"b": [found, "zz zz"] if as_list else found}}
    assert matches(rule, facts(claims=claims)) == (wanted == found)
    assert not matches(rule, facts(claims={"a": wanted}))


@given(st.text(max_size=60))
def test_no_text_is_a_token_by_chance(text: str) -> None:
    assert verify(text, '{"keys":[]}', 0) is None
