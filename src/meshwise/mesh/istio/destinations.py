"""Which DestinationRule a client of one namespace obeys for a service.

Mirrors pilot/pkg/model/push_context.go (setDestinationRules, destinationRule), destination_rule.go (merging)
and config.go (hosts): the client's namespace is asked first, then the service's, then the root namespace; in
each the most specific host decides; rules of one host and namespace are merged, and the oldest policy stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from meshwise.mesh.istio.kinds import ROOT_NAMESPACE, DestinationRule

_DOMAIN = "cluster.local"


@dataclass(frozen=True)
class Destinations:
    """All rules, by how they reach a client."""

    rules: Sequence[DestinationRule]
    """The oldest first."""

    def rule_for(self, client_namespace: str, namespace: str, host: str) -> DestinationRule | None:
        """`namespace` and `host` are the service's."""
        own = [rule for rule in self.rules if rule.meta.namespace == client_namespace]
        if client_namespace == ROOT_NAMESPACE:
            own = [rule for rule in own if _private(rule)]
        else:
            own = [rule for rule in own if _reaches(rule, client_namespace) or "." in rule.export_to]
        if found := _most_specific(own, host):
            return found[-1]
        for owner in (namespace, ROOT_NAMESPACE):
            exported = [rule for rule in self.rules if rule.meta.namespace == owner and not _private(rule)]
            # A specific rule that does not reach the client hides a wider one of its namespace that does.
            if found := [each for each in _most_specific(exported, host) if _reaches(each, client_namespace)]:
                return found[-1]
        return None


def full_name(rule: DestinationRule) -> str:
    """A short host is one of the rule's own namespace."""
    if rule.host == "*" or "." in rule.host:
        return rule.host
    return f"{rule.host}.{rule.meta.namespace}.svc.{_DOMAIN}"


def host_matches(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*") else host == pattern


def _private(rule: DestinationRule) -> bool:
    return rule.export_to in ({"."}, {rule.meta.namespace})


def _reaches(rule: DestinationRule, namespace: str) -> bool:
    return not rule.export_to or not rule.export_to.isdisjoint(("*", namespace))


def _most_specific(rules: Iterable[DestinationRule], host: str) -> list[DestinationRule]:
    """The rules, merged, of the host that fits best: the name itself, then the longest with `*`."""
    by_host: dict[str, list[DestinationRule]] = {}
    for rule in rules:
        by_host.setdefault(full_name(rule), []).append(rule)
    fitting = [pattern for pattern in by_host if host_matches(pattern, host)]
    if not fitting:
        return []
    return _merged(by_host[min(fitting, key=lambda each: (each.startswith("*"), -len(each), each))])


def _merged(rules: Sequence[DestinationRule]) -> list[DestinationRule]:
    """Into the first of the same, or of a smaller, set of namespaces; others stand beside it."""
    merged: list[DestinationRule] = []
    for rule in rules:
        apart = True
        for index, known in enumerate(merged):
            if rule.export_to == known.export_to or (known.export_to and rule.export_to > known.export_to):
                merged[index] = replace(known, policy=known.policy or rule.policy)
                apart = False
            else:
                apart = True
        if apart:
            merged.append(rule)
    return merged
