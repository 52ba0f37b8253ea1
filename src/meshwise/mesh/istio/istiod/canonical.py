"""Two configurations of a sidecar in one form, and how they differ.

The form is protobuf's JSON: lowerCamelCase names (in every key, so that map keys fare alike on both
sides), and no field that has its default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

_BY_NAME: Mapping[str, Callable[[Json], str]] = {
    "virtualHosts": lambda each: str(each["name"]),
    "filterChains": lambda each: f"{each.get('name', '')} {json.dumps(each.get('filterChainMatch'))}",
}
"""Lists whose order means nothing, and what tells their elements apart. istiod writes the chains of ports
with an mTLS mode of their own in any order."""
_SETS = ("domains", "applicationProtocols")
_DEFAULTS: Mapping[str, Any] = {
    "codecType": "AUTO",
    "action": "ALLOW",
    "type": "STATIC",
    "pathWithEscapedSlashesAction": "KEEP_UNCHANGED",
    "upstreamProtocol": "HTTP10",
    "value": 0,
    "filterChainMatch": {},
    "policies": {},
    "start": 0,
}
"""What one side writes out though it is the default: enumerations, a percentage, an empty message or map that
means the same as none."""


_PARTS: Mapping[str, str] = {
    "clusters": "clusters",
    "listeners": "listeners",
    "listenerFilters": "filters",
    "filterChains": "filter chains",
    "filters": "filters",
    "httpFilters": "filters",
    "virtualHosts": "virtual hosts",
    "policies": "authorization rules",
    "providers": "token issuers",
}
"""Fields whose elements are counted, and what these are called."""
_SINGLE_PARTS: Mapping[str, str] = {
    "defaultFilterChain": "filter chains",
    "commonTlsContext": "TLS contexts",
}


@dataclass(frozen=True)
class FieldPair:
    """A field that differs. `path`: from the kind and name of a resource down to it."""

    path: str
    istiod: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.path}\n    istiod: {self.istiod}\n    ours:   {self.ours}"


def canonical(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        value = _with_typed_names(value)
        named = {_camel(key): canonical(each, _camel(key)) for key, each in value.items()}
        return {key: each for key, each in named.items() if not _is_default(key, each)}
    if isinstance(value, list | tuple):
        found = [canonical(each) for each in value]
        if name in _SETS:
            return sorted(found)
        return {_BY_NAME[name](each): each for each in found} if name in _BY_NAME else found
    return value


def _with_typed_names(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Names of certificates in the present field, which has their type beside each."""
    if "matchSubjectAltNames" not in value:
        return value
    rest = {key: each for key, each in value.items() if key != "matchSubjectAltNames"}
    return {
        **rest,
        "matchTypedSubjectAltNames": [{"matcher": each} for each in value["matchSubjectAltNames"]],
    }


def differences(istiod: Any, ours: Any, path: str) -> Iterator[FieldPair]:
    """Of two values in canonical form, as deep as possible."""
    one, other = istiod or None, ours or None
    if isinstance(one or other, dict) and all(isinstance(each, dict | None) for each in (one, other)):
        one, other = one or {}, other or {}
        for key in sorted(one.keys() | other.keys()):
            yield from differences(one.get(key), other.get(key), f"{path}/{key}")
    elif isinstance(istiod, list) and isinstance(ours, list) and len(istiod) == len(ours):
        for index, (one, other) in enumerate(zip(istiod, ours, strict=True)):
            yield from differences(one, other, f"{path}/{index}")
    elif istiod != ours:
        yield FieldPair(path, istiod, ours)


def resource_differences(istiod: Json, ours: Json) -> Iterator[FieldPair]:
    """Of two configurations in canonical form, by kind and name; a resource that one side lacks is one
    difference."""
    for kind in sorted(istiod.keys() | ours.keys()):
        one, other = istiod.get(kind) or {}, ours.get(kind) or {}
        for name in sorted(one.keys() | other.keys()):
            path = f"/{kind}/{name}"
            if name in one and name in other:
                yield from differences(one[name], other[name], path)
            else:
                yield FieldPair(path, one.get(name), other.get(name))


def parts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """What a configuration in canonical form consists of: what it is called, and its path."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in items:
        below = f"{path}/{name}"
        if word := _SINGLE_PARTS.get(str(name)):
            yield word, below
        elif word := _PARTS.get(str(name)):
            names = each if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
            yield from ((word, f"{below}/{inner}") for inner in names)
        yield from parts(each, below)


def touches(path: str, other: str) -> bool:
    """Whether one of the two is the other, or lies in it."""
    return path == other or path.startswith(f"{other}/") or other.startswith(f"{path}/")


def _camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)


def _is_default(name: str, value: Any) -> bool:
    return value is None or (name in _DEFAULTS and value == _DEFAULTS[name])
