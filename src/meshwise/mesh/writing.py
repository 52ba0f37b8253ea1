"""Resources as YAML that Kubernetes reads as it was meant: text that looks like anything else is quoted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from meshwise.mesh.reading import other_than_text

_BASE: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def written(documents: Iterable[Mapping[str, Any]]) -> str:
    """Multi-document YAML, as one would apply it."""
    return str(yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=100, explicit_start=True))


class _Dumper(_BASE):  # type: ignore[misc]  # PyYAML has C's dumper or not, known when it runs
    """PyYAML's own, but for plain `y`, `n`, `1e3` and the like, which it writes as they are."""


def _text(dumper: Any, value: str) -> yaml.ScalarNode:
    node: yaml.ScalarNode = dumper.represent_str(value)
    if other_than_text(value):
        node.style = "'"
    return node


_Dumper.add_representer(str, _text)
