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


@dataclass(frozen=True)
class Difference:
    """`path`: from the kind and name of a resource down to the field."""

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


def differences(istiod: Any, ours: Any, path: str) -> Iterator[Difference]:
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
        yield Difference(path, istiod, ours)


def _camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)


def _is_default(name: str, value: Any) -> bool:
    return value is None or (name in _DEFAULTS and value == _DEFAULTS[name])
