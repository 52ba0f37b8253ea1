"""A file that says who calls whom -> `ServiceGraph`, or one error that names every mistake with its place.

Two forms. `.yaml`, `.yml`, `.json`: the service graphs of istio/tools' isotope (isotope/README.md and
isotope/convert/pkg/graph there), with keys of meshwise's own for security: `mtls`, `authorization` and
`aggregates` of a service, and `namespaces: {NAME: {mtls:, authorization:}}` for all of one. Any other
ending: a plain list of calls (`study.graph_edges`). A graph may also stand in the study itself.

Where it differs from isotope, on purpose:
- A size that nobody says is the cell's (factors `request` and `response`), not 0.
- `errorRate` and `probability` are drawn anew for each request; isotope answers every n-th with an error.
- What has no meaning on one machine (`numReplicas`, `cluster`, ...) and `type` (the protocol is a factor of
  the study) is read, has no effect, and is said in `notes`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from meshwise.core import messages
from meshwise.study.document import MAX_CHARACTERS, Document, Path, parse_document
from meshwise.study.graph import GraphService, ServiceGraph, Step
from meshwise.study.graph_edges import parse_edges
from meshwise.study.graph_laws import MAX_SERVICES, Places, check_graph, is_label, too_many
from meshwise.study.graph_script import script_of
from meshwise.study.graph_values import Node
from meshwise.study.problems import Problem, to_error
from meshwise.study.security import Authorization, MtlsMode
from meshwise.study.topology import BACKEND

YAML_ENDINGS = (".yaml", ".yml", ".json")

_TOP = ("services", "defaults", "namespaces", "name")
_TOP_WITHOUT_EFFECT = ("apiVersion", "kind")
_DEFAULTS = ("requestSize", "responseSize", "errorRate", "script")
_DEFAULTS_WITHOUT_EFFECT = ("type", "numReplicas", "numRbacPolicies")
_SERVICE = (
    "name", "namespace", "isEntrypoint", "responseSize", "errorRate", "script", "aggregates", "mtls",
    "authorization",
)  # fmt: skip
_SERVICE_WITHOUT_EFFECT = ("type", "numReplicas", "cluster", "labels", "numRbacPolicies")
_TYPES = ("http", "grpc")


@dataclass(frozen=True)
class GraphFile:
    graph: ServiceGraph
    notes: tuple[str, ...] = ()
    """What the file says and has no effect here, for whoever plans the study."""


def read_graph(path: FilePath) -> GraphFile:
    """Raises FileNotFoundError for a file that is gone, MW1xx for anything else that is wrong."""
    try:
        with path.open("rb") as stream:
            text = stream.read(4 * MAX_CHARACTERS + 1).decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise messages.UNREADABLE_GRAPH.error(str(path), reason=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise messages.UNREADABLE_GRAPH.error(str(path), reason=f"byte {error.start} is not UTF-8") from error
    return parse_graph(text, str(path))


def parse_graph(text: str, name: str) -> GraphFile:
    """The same from text; `name` stands for the file in messages, and its ending tells the form."""
    problems: list[Problem] = []
    stem = _label(FilePath(name).stem)
    if FilePath(name).suffix.lower() in YAML_ENDINGS:
        document = parse_document(text, name)
        found = graph_of(document, (), stem, problems)
    else:
        document, services, entrypoints, places = parse_edges(text, name, problems)
        if not problems:
            check_graph(services, entrypoints, places, problems)
        found = None if problems else GraphFile(_graph(stem, services, entrypoints[0]))
    if found is None:
        raise to_error(document, problems)
    return found


def graph_of(document: Document, root: Path, name: str, problems: list[Problem]) -> GraphFile | None:
    """The graph that stands at `root`; None when `problems` has grown."""
    before = len(problems)
    top = Node(_at(document.value, root), root, problems)
    reader = _Reader()
    keys = top.keys("a graph", _TOP, _TOP_WITHOUT_EFFECT, reader.notes)
    defaults = keys["defaults"].keys("`defaults`", _DEFAULTS, _DEFAULTS_WITHOUT_EFFECT, reader.notes) if (
        "defaults" in keys
    ) else {}  # fmt: skip
    reader.take_defaults(defaults)
    reader.take_namespaces(keys.get("namespaces"))
    if (said := keys.get("name")) is not None and (given := said.word("name")) is not None:
        name = given
        if not is_label(given):
            said.bad(f"`{given[:70]}` cannot be the name of a graph", "lower-case letters, digits and `-`")
    if "services" not in keys:
        if len(problems) == before:
            top.bad("a graph has `services`", "add `services:` and a list of them, each with a `name`")
        return None
    items = keys["services"].items("services")
    if len(items) > MAX_SERVICES:
        problems.append(too_many(keys["services"].path, len(items)))
        return None
    for item in items:
        reader.take_service(item)
    reader.check_namespaces()
    if len(problems) == before:
        places = Places(keys["services"].path, reader.services_at, reader.calls_at, reader.entrypoints_at)
        check_graph(reader.services, reader.entrypoints, places, problems)
    if len(problems) > before:
        return None
    return GraphFile(_graph(name, reader.services, reader.entrypoints[0]), reader.told())


def _graph(name: str, services: list[GraphService], entry: str) -> ServiceGraph:
    return ServiceGraph(name, tuple(sorted(services, key=lambda service: service.name != entry)))


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def _label(stem: str) -> str:
    """A graph's name from its file's: `My Shop_2` -> `my-shop-2`."""
    found = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:40].strip("-")
    return found if is_label(found) else "graph"


class _Reader:
    """Takes a graph's parts in turn; afterwards its services and where each was said."""

    def __init__(self) -> None:
        self.notes: dict[str, int] = {}
        """Keys without effect, with how often they stood there."""
        self.services: list[GraphService] = []
        self.services_at: list[Path] = []
        self.calls_at: dict[tuple[str, str], Path] = {}
        self.entrypoints: list[str] = []
        self.entrypoints_at: list[Path] = []
        self._default = GraphService("")
        self._request_bytes: int | None = None
        self._default_calls: dict[str, Path] = {}
        self._namespaces: dict[str, tuple[Node, MtlsMode | None, Authorization | None]] = {}

    def take_defaults(self, said: dict[str, Node]) -> None:
        if "requestSize" in said:
            self._request_bytes = said["requestSize"].size()
        if "type" in said:
            said["type"].choice("type", _TYPES)
        script: tuple[Step, ...] = ()
        if "script" in said:
            script = script_of(said["script"], self._request_bytes, self._default_calls, self.notes)
        self._default = replace(
            self._default,
            response_bytes=said["responseSize"].size() if "responseSize" in said else None,
            error_share=(said["errorRate"].share() if "errorRate" in said else None) or 0.0,
            script=script,
        )

    def take_namespaces(self, said: Node | None) -> None:
        for name, node in said.mapping("`namespaces`").items() if said is not None else ():
            keys = node.keys("a namespace", ("mtls", "authorization"), (), self.notes)
            self._namespaces[name] = (node, *_demands(keys))

    def take_service(self, item: Node) -> None:
        keys = item.keys("a service", _SERVICE, _SERVICE_WITHOUT_EFFECT, self.notes)
        name = keys["name"].word("name") if "name" in keys else None
        if name is None:
            if "name" not in keys and isinstance(item.value, dict):
                item.bad("a service has a name", "add `name:`")
            return
        default = self._default
        if "type" in keys:
            keys["type"].choice("type", _TYPES)
        namespace = (keys["namespace"].word("namespace") if "namespace" in keys else None) or BACKEND
        _, mtls, authorization = self._namespaces.get(namespace, (None, None, None))
        own_mtls, own_authorization = _demands(keys)
        calls: dict[str, Path] = dict(self._default_calls)
        script = default.script
        if "script" in keys:
            calls = {}
            script = script_of(keys["script"], self._request_bytes, calls, self.notes)
        self.services.append(
            GraphService(
                name,
                namespace,
                script,
                keys["responseSize"].size() if "responseSize" in keys else default.response_bytes,
                aggregates=bool(keys["aggregates"].flag("aggregates")) if "aggregates" in keys else False,
                error_share=(keys["errorRate"].share() if "errorRate" in keys else None)
                or (0.0 if "errorRate" in keys else default.error_share),
                mtls=own_mtls or mtls,
                authorization=own_authorization or authorization,
            )
        )
        self.services_at.append(keys["name"].path)
        for callee, path in calls.items():
            self.calls_at.setdefault((name, callee), path)
        if "isEntrypoint" in keys and keys["isEntrypoint"].flag("isEntrypoint"):
            self.entrypoints.append(name)
            self.entrypoints_at.append(keys["isEntrypoint"].path)

    def check_namespaces(self) -> None:
        used = {service.namespace for service in self.services}
        for name, (node, _, _) in self._namespaces.items():
            if name not in used:
                node.bad(f"no service is in the namespace `{name}`", "correct the name, or remove it")

    def told(self) -> tuple[str, ...]:
        if not self.notes:
            return ()
        names = ", ".join(f"`{name}`" for name in sorted(self.notes))
        reasons = {
            "type": "the study's `protocol` is what is spoken",
            "numReplicas": "one instance of each service runs",
        }
        why = "; ".join(reason for name, reason in reasons.items() if name in self.notes)
        return (f"the service graph says {names}, without effect here{f': {why}' if why else ''}",)


def _demands(keys: dict[str, Node]) -> tuple[MtlsMode | None, Authorization | None]:
    mtls = keys["mtls"].choice("mTLS mode", tuple(MtlsMode)) if "mtls" in keys else None
    kind = (
        keys["authorization"].choice("kind of authorization", tuple(Authorization))
        if "authorization" in keys
        else None
    )
    return None if mtls is None else MtlsMode(mtls), None if kind is None else Authorization(kind)
