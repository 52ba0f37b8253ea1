"""A proxy's administration interface, asked from inside its pod (Envoy docs: operations/admin)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.bootstrap import ADMIN_PORT
from meshwise.mesh.reach import Reach
from meshwise.telemetry.envoy import Fetch

Stats = Mapping[str, int | str]
"""Counter, gauge or text by full name."""


@dataclass(frozen=True)
class EnvoyAdmin:
    """The administration of one proxy. Raises MW406 when the proxy does not answer."""

    pod: str
    reach: Reach

    def get(self, path: str) -> bytes:
        return self.reach.get(self.pod, ADMIN_PORT, path)

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def stats(self, pattern: str) -> Stats:
        """Counters, gauges and texts whose name matches the regular expression; histograms are left out."""
        found: dict[str, int | str] = {}
        for entry in self.json(f"/stats?format=json&filter={quote(pattern)}")["stats"]:
            if "name" in entry and "value" in entry:
                found[entry["name"]] = entry["value"]
        return found


def fetch_from(pod: str, reach: Reach) -> Fetch:
    """For a sampler."""

    def fetch(path: str) -> bytes:
        try:
            return EnvoyAdmin(pod, reach).get(path)
        except MeshwiseError as error:
            raise OSError(str(error)) from error

    return fetch


def total(stats: Stats, pattern: str) -> int:
    """The sum of the numbers whose name matches the whole of `pattern`."""
    compiled = re.compile(pattern)
    return sum(value for name, value in stats.items() if isinstance(value, int) and compiled.fullmatch(name))


def grown(before: Stats, after: Stats) -> Stats:
    """What was counted between two readings; only what moved."""
    moved: dict[str, int | str] = {}
    for name, value in after.items():
        former = before.get(name, 0)
        if isinstance(value, int) and isinstance(former, int) and value != former:
            moved[name] = value - former
    return moved
