"""istiod in the place of our translation: the same study runs on what istiod itself generates.

It runs beside the study, on the loopback of the study's own world, and is told the services, pods and
resources of one placement at a time: two sets of pods with the same names would be endpoints of one service.
What it has generated is kept, so that a posture that comes again is not waited for again. What changes within
a trial is always generated anew, so that it takes as long in every trial.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from meshwise.core.patience import USUAL, Patience
from meshwise.mesh.delivery.seam import ProxyConfig
from meshwise.mesh.istio.istiod import binary
from meshwise.mesh.istio.istiod.adapted import adapted, filters_of
from meshwise.mesh.istio.istiod.generated import Generated, generate
from meshwise.mesh.istio.istiod.objects import (
    MOST_NUMBERS,
    cluster_objects,
    policy_object,
    posture_objects,
)
from meshwise.mesh.istio.istiod.process import Istiod, IstioFilters, running
from meshwise.mesh.istio.view import View

_KEPT = 64
"""Configurations of a placement: as many postures as studies have, with room for those of a twin."""


class IstiodControlPlane:
    """Owner of istiod. A context manager; istiod is started when it is first asked, and again when it has
    ended. May be called from several threads."""

    def __init__(self, path: Path, directory: Path, patience: Patience = USUAL) -> None:
        """`path`: of the program; `directory`: for its files, made and private."""
        self.path, self._directory, self._patience = path, directory, patience
        self._stack = ExitStack()
        self._istiod: tuple[str, IstioFilters, Istiod] | None = None
        self._numbers = itertools.count()
        self._kept: OrderedDict[tuple[str, str], Mapping[str, Generated]] = OrderedDict()
        self._told: tuple[str, str] | None = None
        """What istiod was told last."""
        self._asking = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._istiod = None
        self._stack.close()

    def __call__(self, view: View, resources: str, within_trial: bool = False) -> Mapping[str, ProxyConfig]:
        """See `translate.Configure`. Raises MW440 or MW441."""
        with self._asking:
            generated = self._generated(view, resources, within_trial)
        return {service.name: adapted(generated[service.name], view, service) for service in view.services}

    def facts(self) -> Mapping[str, str]:
        """Of the program. Raises MW440."""
        return binary.facts(self.path)

    def _generated(self, view: View, resources: str, within_trial: bool) -> Mapping[str, Generated]:
        written = posture_objects(resources)
        named = {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in written}
        beside = [
            policy_object(each)
            for each in view.resources.authorization_policies
            if (each.meta.namespace, each.meta.name) not in named
        ]
        key = (resources, repr((beside, view.services, view.trust_domain, filters_of(view.options))))
        istiod = self._running(view)
        objects, number = (*written, *beside), next(self._numbers) % MOST_NUMBERS
        if within_trial or key not in self._kept:
            self._kept[key] = generate(istiod, view.services, objects, view.trust_domain, number)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        elif key != self._told:  # so that what changes next is the same change as before
            istiod.objects.replace_all(cluster_objects(view.services, objects, number))
        self._told = key
        return self._kept[key]

    def _running(self, view: View) -> Istiod:
        wanted = (view.trust_domain, filters_of(view.options))
        if self._istiod is None or self._istiod[:2] != wanted or not self._istiod[2].process.running:
            self._stack.close()
            started = running(self.path, self._directory, *wanted, self._patience)
            self._istiod = (*wanted, self._stack.enter_context(started))
        return self._istiod[2]
