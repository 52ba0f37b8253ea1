"""A graph inside a Kubernetes ConfigMap, alone or among the other manifests of a file.

isotope's `converter kubernetes` writes the graph into the ConfigMap `service-graph-config`, key
`service-graph`, followed by Deployments and Services, all in one file (its convert/pkg/kubernetes); muBench
has `workmodel.json` in the ConfigMap `workmodel`. `kubectl get configmap -o yaml` prints one of them alone.
"""

from __future__ import annotations

import re

from meshwise.core import messages
from meshwise.study.file.document import Document, parse_document

_GRAPH_KEYS = ("service-graph", "service-graph.yaml", "workmodel.json")
_BETWEEN = re.compile(r"^---[ \t]*(?:#.*)?$", re.MULTILINE)
_CONFIG_MAP = re.compile(r"^kind:[ \t]*[\"']?ConfigMap[\"']?[ \t]*(?:#.*)?$", re.MULTILINE)


def manifest_of(text: str, name: str) -> Document | None:
    """The graph's own document; None for a text without a ConfigMap. Places count from the graph's own text:
    the key stands in the document's name. Raises MW1xx."""
    start = 0
    pieces = [*(match.span() for match in _BETWEEN.finditer(text)), (len(text), len(text))]
    for end, following in pieces:
        if _CONFIG_MAP.search(text, start, end):
            above = "\n" * text.count("\n", 0, start)
            manifest = parse_document(above + text[start:end], name)
            if (found := _graph_in(manifest, name)) is not None:
                return found
        start = following
    return None


def _graph_in(manifest: Document, name: str) -> Document | None:
    data = manifest.value.get("data") if isinstance(manifest.value, dict) else None
    texts = (
        {key: text for key, text in data.items() if isinstance(text, str)} if isinstance(data, dict) else {}
    )
    key = next((key for key in _GRAPH_KEYS if key in texts), None)
    if key is None:
        raise messages.BAD_VALUE.error(
            manifest.where(("data",) if data is not None else ()),
            reason="this ConfigMap holds no service graph",
            remedy=f"its `data` has one of {', '.join(f'`{each}`' for each in _GRAPH_KEYS)}",
        )
    return parse_document(texts[key], f"{name} ({key})")
