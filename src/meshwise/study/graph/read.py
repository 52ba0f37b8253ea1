"""A file that says who calls whom -> `ServiceGraph`, or one error that names every mistake with its place.

`.yaml`, `.yml`, `.json`: the service graphs of istio/tools' isotope (isotope/README.md and
isotope/convert/pkg/graph there), with keys of meshwise's own for security: `mtls`, `authorization` and
`aggregates` of a service, and `namespaces: {NAME: {mtls:, authorization:}}` for all of one; or, known by what
is in it, a tracing backend's dependencies (`study.graph.jaeger`), a work model of muBench
(`study.graph.mubench`), or a ConfigMap that holds one of these (`study.graph.manifest`). `.dot`, `.gv`: a
drawing (`study.graph.dot`). Any other ending: a plain list of calls (`study.graph.edges`). A graph may also
stand in the study itself.

Where it differs from isotope, on purpose:
- A size that the file does not say is the cell's (factors `request` and `response`), not 0.
- `errorRate` and `probability` are drawn anew for each request; isotope answers every n-th with an error.
- The client calls one service. Of several entrypoints it is the one that is asked for, or else the one that
  leads to the most services; what only the others lead to is left out, and `notes` say so.
- What has no meaning on one machine (`numReplicas`, `cluster`, ...) and `type` (the protocol is a factor of
  the study) is read, has no effect, and is said in `notes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from meshwise.core import messages
from meshwise.core.files import reading
from meshwise.study.file.document import MAX_CHARACTERS, Document, Path, parse_document
from meshwise.study.file.problems import Problem, to_error
from meshwise.study.graph.counted import CalledServices
from meshwise.study.graph.dot import parse_dot
from meshwise.study.graph.edges import parse_edges
from meshwise.study.graph.entry import choose_entry
from meshwise.study.graph.jaeger import dependencies_of, is_dependencies
from meshwise.study.graph.laws import MAX_SERVICES, Places, check_graph, is_label, too_many
from meshwise.study.graph.manifest import manifest_of
from meshwise.study.graph.model import GraphService, ServiceGraph, Step
from meshwise.study.graph.mubench import is_work_model, work_model_of
from meshwise.study.graph.script import script_of
from meshwise.study.graph.values import FileValue
from meshwise.study.security import Authorization, MtlsMode
from meshwise.study.topology import BACKEND

YAML_ENDINGS = (".yaml", ".yml", ".json")
DOT_ENDINGS = (".dot", ".gv")

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
    """What the file says and has no effect here, for the plan of the study."""


def read_graph(path: FilePath, entry: str | None = None) -> GraphFile:
    """Raises FileNotFoundError for a file that is gone, MW1xx for anything else that is wrong.

    `entry`: the service that the client calls, instead of those that the file says.
    """
    try:
        with reading(path) as stream:
            text = stream.read(4 * MAX_CHARACTERS + 1).decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise messages.UNREADABLE_GRAPH.error(str(path), reason=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise messages.UNREADABLE_GRAPH.error(str(path), reason=f"byte {error.start} is not UTF-8") from error
    return parse_graph(text, str(path), entry)


def parse_graph(text: str, name: str, entry: str | None = None) -> GraphFile:
    """The same from text; `name` stands for the file in messages, and its ending tells the form."""
    problems: list[Problem] = []
    stem, ending = _label(FilePath(name).stem), FilePath(name).suffix.lower()
    if ending in YAML_ENDINGS:
        document = manifest_of(text, name) or parse_document(_json_tabs(text, ending), name)
        found = graph_of(document, (), stem, problems, entry)
    else:
        document, called = (parse_dot if ending in DOT_ENDINGS else parse_edges)(text, name, problems)
        found = None if problems else _called(called, (), stem, problems, entry)
    if found is None:
        raise to_error(document, problems)
    return found


def graph_of(
    document: Document, root: Path, name: str, problems: list[Problem], entry: str | None = None
) -> GraphFile | None:
    """The graph that stands at `root`; None when `problems` has grown."""
    top = FileValue(_at(document.value, root), root, problems)
    before = len(problems)
    if is_dependencies(top.value):
        called = dependencies_of(top, problems)
        return None if len(problems) > before else _called(called, root, name, problems, entry)
    if is_work_model(top.value):
        services, roots, places, notes = work_model_of(top, problems)
        if len(problems) > before:
            return None
        return _settled(services, roots, places, name, problems, entry, notes)
    return _isotope(top, name, problems, entry)


def _isotope(top: FileValue, name: str, problems: list[Problem], entry: str | None) -> GraphFile | None:
    before = len(problems)
    reader = _GraphReader()
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
    if len(problems) > before:
        return None
    places = Places(keys["services"].path, reader.services_at, reader.calls_at)
    entrypoints = dict(zip(reader.entrypoints, reader.entrypoints_at, strict=True))
    return _settled(reader.services, entrypoints, places, name, problems, entry, reader.without_effect())


def _called(
    called: CalledServices, root: Path, name: str, problems: list[Problem], entry: str | None
) -> GraphFile | None:
    if len(called.names) > MAX_SERVICES:
        problems.append(too_many(root, len(called.names)))
        return None
    before = len(problems)
    services = called.services(problems)
    if len(problems) > before:
        return None
    notes = called.notes()
    return _settled(services, called.entrypoints(), called.places(root), name, problems, entry, notes)


def _settled(
    services: list[GraphService],
    entrypoints: Mapping[str, Path],
    places: Places,
    name: str,
    problems: list[Problem],
    entry: str | None,
    notes: tuple[str, ...],
) -> GraphFile | None:
    """One entrypoint, and every law held."""
    before = len(problems)
    chosen = choose_entry(services, entrypoints, places, entry, problems)
    if len(problems) > before:
        return None
    check_graph(chosen.services, chosen.entrypoints, chosen.places, problems)
    if len(problems) > before:
        return None
    return GraphFile(_graph(name, chosen.services, chosen.entrypoints[0]), (*notes, *chosen.notes))


def _graph(name: str, services: Sequence[GraphService], entry: str) -> ServiceGraph:
    return ServiceGraph(name, tuple(sorted(services, key=lambda service: service.name != entry)))


def _json_tabs(text: str, ending: str) -> str:
    """JSON may be indented with tabs, which YAML may not; inside its texts there are none."""
    return text.replace("\t", " ") if ending == ".json" else text


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def _label(stem: str) -> str:
    """A graph's name from its file's: `My Shop_2` -> `my-shop-2`."""
    found = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:40].strip("-")
    return found if is_label(found) else "graph"


class _GraphReader:
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
        self._namespaces: dict[str, tuple[FileValue, MtlsMode | None, Authorization | None]] = {}

    def take_defaults(self, said: dict[str, FileValue]) -> None:
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

    def take_namespaces(self, said: FileValue | None) -> None:
        for name, node in said.mapping("`namespaces`").items() if said is not None else ():
            keys = node.keys("a namespace", ("mtls", "authorization"), (), self.notes)
            self._namespaces[name] = (node, *_demands(keys))

    def take_service(self, item: FileValue) -> None:
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

    def without_effect(self) -> tuple[str, ...]:
        if not self.notes:
            return ()
        names = ", ".join(f"`{name}`" for name in sorted(self.notes))
        reasons = {
            "type": "the study's `protocol` is what is spoken",
            "numReplicas": "one instance of each service runs",
        }
        why = "; ".join(reason for name, reason in reasons.items() if name in self.notes)
        return (f"the service graph says {names}, without effect here{f': {why}' if why else ''}",)


def _demands(keys: dict[str, FileValue]) -> tuple[MtlsMode | None, Authorization | None]:
    mtls = keys["mtls"].choice("mTLS mode", tuple(MtlsMode)) if "mtls" in keys else None
    kind = (
        keys["authorization"].choice("kind of authorization", tuple(Authorization))
        if "authorization" in keys
        else None
    )
    return None if mtls is None else MtlsMode(mtls), None if kind is None else Authorization(kind)
