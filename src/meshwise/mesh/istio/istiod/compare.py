"""Our translation beside istiod's own, field by field.

What differs is known (`fidelity.FIELDS`, the one table of it, with reasons) or it is not; whether an unknown
difference matters is for people to say.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshwise.mesh.delivery.seam import ProxyConfig
from meshwise.mesh.istio import fidelity
from meshwise.mesh.istio.istiod.canonical import FieldPair, canonical, parts, resource_differences, touches
from meshwise.mesh.istio.istiod.generated import Generated, generate
from meshwise.mesh.istio.istiod.objects import posture_objects
from meshwise.mesh.istio.istiod.process import Istiod
from meshwise.mesh.istio.native import NAMES, Native
from meshwise.mesh.istio.translate import translate
from meshwise.mesh.istio.view import Json, Options, View

ISTIO_PROXY = Native(**{kind: names[0] for kind, names in NAMES.items()})
"""istiod takes it for granted that the proxy has its filters, under their first names; so compared is what we
would give such a proxy."""


@dataclass(frozen=True)
class SidecarDifference:
    workload: str
    pair: FieldPair
    known: fidelity.FieldDifference | None


@dataclass(frozen=True)
class ComparedSidecars:
    """Of all sidecars of a placement in one posture."""

    sidecars: int
    parts: Mapping[str, int]
    """How many of each were compared: clusters, filter chains, ..."""
    unequal: Mapping[str, int]
    """In how many of them something differs that is not known."""
    differences: tuple[SidecarDifference, ...]

    @property
    def unknown(self) -> tuple[SidecarDifference, ...]:
        return tuple(each for each in self.differences if each.known is None)


def compare(istiod: Istiod, view: View, resources: str, number: int) -> ComparedSidecars:
    """`resources`: what `view` was made from; `number`: see `generate`. Raises MW441."""
    objects = posture_objects(resources)
    generated = generate(istiod, view.services, objects, view.trust_domain, number)
    found: list[SidecarDifference] = []
    counted: Counter[str] = Counter()
    unequal: Counter[str] = Counter()
    for service in view.services:
        theirs = canonical(of_istiod(generated[service.name]))
        ours = canonical(of_ours(translate(view, service.name)))
        here = [
            SidecarDifference(service.name, pair, known(pair, view.options))
            for pair in resource_differences(theirs, ours)
        ]
        doubtful = [each.pair.path for each in here if each.known is None]
        for word, path in dict.fromkeys((*parts(theirs), *parts(ours))):
            counted[word] += 1
            unequal[word] += any(touches(path, other) for other in doubtful)
        found += here
    return ComparedSidecars(
        len(view.services), counted, {word: n for word, n in unequal.items() if n}, tuple(found)
    )


def known(pair: FieldPair, options: Options) -> fidelity.FieldDifference | None:
    """Where `fidelity` speaks of it."""
    values = (pair.istiod, pair.ours)
    for field in fidelity.FIELDS:
        if field.asked and not fidelity.asks(options, field.asked):
            continue
        if re.fullmatch(field.path, pair.path) and field.values in (None, values):
            return field
    return None


# --- both sides in one shape -----------------------------------------------------------------------


def of_istiod(found: Generated) -> Json:
    return {
        "clusters": {
            name: {**_plain(each), "loadAssignment": _plain(found.endpoints[name])}
            if name in found.endpoints
            else _plain(each)
            for name, each in found.clusters.items()
        },
        "listeners": {name: _plain(each) for name, each in found.listeners.items()},
        "routes": {name: _plain(each) for name, each in found.routes.items()},
    }


def of_ours(config: ProxyConfig) -> Json:
    def named(resources: Sequence[Json]) -> dict[str, Json]:
        return {each["name"]: each for each in resources}

    endpoints = {each["cluster_name"]: each for each in config.endpoints}
    return {
        "clusters": {
            name: {**each, "loadAssignment": endpoints[name]} if name in endpoints else each
            for name, each in named(config.clusters).items()
        },
        "listeners": named(config.listeners),
        "routes": named(tuple(config.routes.values())),
    }


def _plain(resource: Mapping[str, Any]) -> Json:
    return {key: value for key, value in resource.items() if key != "@type"}
