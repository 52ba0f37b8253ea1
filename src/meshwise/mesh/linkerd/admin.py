"""A proxy's administration port, asked from inside its pod, and its metrics, read as values.

Paths and metrics: linkerd2-proxy `linkerd/app/admin/src/server.rs`, `linkerd/http/metrics`,
`linkerd/transport-metrics`, `linkerd/app/inbound/src/metrics/authz.rs`. The text is Prometheus' own format.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from meshwise.mesh.linkerd.names import ADMIN_PORT
from meshwise.mesh.reach import Reach

_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}


@dataclass(frozen=True)
class Series:
    """One line of metrics."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class ProxyAdmin:
    """The administration of one proxy. Raises MW406 when the proxy does not answer."""

    pod: str
    reach: Reach

    def get(self, path: str) -> bytes:
        return self.reach.get(self.pod, ADMIN_PORT, path)

    def metrics(self, names: Collection[str]) -> tuple[Series, ...]:
        """The series of these names."""
        return parse(self.get("/metrics").decode(), names)

    def matching(self, name: re.Pattern[str]) -> tuple[Series, ...]:
        """The series whose whole name matches."""
        text = self.get("/metrics").decode()
        names = {re.split(r"[{ ]", line, maxsplit=1)[0] for line in text.splitlines()}
        return parse(text, {each for each in names if name.fullmatch(each)})


def parse(text: str, names: Collection[str]) -> tuple[Series, ...]:
    """The series of these names in Prometheus' text format; anything else is passed over unread."""
    found = []
    for line in text.splitlines():
        end = line.find("{")
        name = line[:end] if end >= 0 else line.partition(" ")[0]
        if name not in names:
            continue
        labels, _, value = line[end:].rpartition(" ") if end >= 0 else ("", "", line.rpartition(" ")[2])
        found.append(Series(name, dict(_labels(labels)), float(value)))
    return tuple(found)


def _labels(text: str) -> Iterable[tuple[str, str]]:
    for name, value in _LABEL.findall(text):
        yield name, re.sub(r'\\[\\"n]', lambda match: _ESCAPED[match[0]], value) if "\\" in value else value


def total(series: Iterable[Series], name: str, **labels: str) -> float:
    """The sum of all series of this name with these labels (and any others)."""
    return sum(each.value for each in series if each.name == name and labels.items() <= each.labels.items())


def grown(before: Iterable[Series], after: Iterable[Series]) -> tuple[Series, ...]:
    """What was counted between two readings; only what moved."""
    former = {_key(each): each.value for each in before}
    return tuple(
        Series(each.name, each.labels, each.value - former.get(_key(each), 0.0))
        for each in after
        if each.value != former.get(_key(each), 0.0)
    )


def _key(series: Series) -> tuple[str, frozenset[tuple[str, str]]]:
    return series.name, frozenset(series.labels.items())
