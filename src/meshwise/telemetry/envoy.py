"""Envoy's own statistics, from its admin interface, as samples with names of our own.

Rules of this file:
- Parsing is pure. The text format is read, as it costs Envoy and us least (measured on Envoy 1.40 with 600
  statistics: 0.28 ms of its CPU, JSON 0.33, Prometheus 0.45).
- A selection, not a dump: what is selected has a stable name here whatever Envoy prefixes it with, and a
  statistic that Envoy has never touched (`usedonly`) is absent, which means zero.
- Reading costs the proxy CPU that a trial would be charged with, so a recorder reads the whole before time 0
  and after the end; during a trial nothing is asked unless `during` says so.

Names: Envoy 1.40, `source/common/stats`, `source/common/tls/stats.h`,
`source/extensions/filters/common/rbac`, `source/extensions/filters/http/jwt_authn/stats.h`.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from meshwise.telemetry.labels import write_labels
from meshwise.telemetry.seam import Moment, Sample

log = logging.getLogger(__name__)

STATS_PATH = "/stats?usedonly"
MEMORY_PATH = "/memory"
"""Exact; the `server.memory_*` statistics are renewed at the flush interval only (5 s)."""

Fetch = Callable[[str], bytes]
"""GET a path of the admin interface: the body of a 200. Raises OSError when that cannot be had."""


@dataclass(frozen=True)
class _Rule:
    """Envoy's name -> ours. Named groups become labels; `metrics` turns the group `m` into the metric."""

    pattern: re.Pattern[str]
    metrics: dict[str, str]


def _rule(before: str, after: str = "", **metrics: str) -> _Rule:
    """A name is what stands `before`, a key of `metrics`, and what stands `after`."""
    return _Rule(re.compile(f"{before}(?P<m>{'|'.join(metrics)}){after}"), metrics)


_NOT_A_COPY = r"(?<!\.external)(?<!\.internal)(?<!\.canary)"
"""Clusters repeat their response counts under these."""
_SCOPE = r"(?P<scope>cluster|listener)\.(?P<name>.+)"

_RULES: tuple[_Rule, ...] = (
    _rule(
        rf"{_SCOPE}\.ssl\.",
        handshake="tls_handshakes_total",
        session_reused="tls_resumed_total",
        connection_error="tls_connection_errors_total",
        no_certificate="tls_no_certificate_total",
    ),
    _rule(rf"{_SCOPE}\.ssl\.", r"_(?P<reason>\w+)", fail_verify="tls_verify_failures_total"),
    _rule(
        rf"{_SCOPE}\.ssl\.", r"\.(?P<is>.+)",
        versions="tls_versions_total",
        curves="tls_curves_total",
        ciphers="tls_ciphers_total",
        sigalgs="tls_sigalgs_total",
    ),
    _rule(
        rf"{_SCOPE}\.ssl\.certificate\.(?P<certificate>.+)\.",
        expiration_unix_time_seconds="certificate_expiry_unix_s",
    ),
    _rule(
        r"(?:http\.)?(?P<name>.+?)\.rbac\.(?:(?P<rules>.+)\.)?",
        **{name: f"rbac_{name}_total" for name in ("allowed", "denied", "shadow_allowed", "shadow_denied")},
    ),
    _rule(
        r"http\.(?P<name>.+)\.jwt_authn\.",
        allowed="jwt_allowed_total",
        denied="jwt_denied_total",
        jwks_fetch_success="jwks_fetches_total",
        jwks_fetch_failed="jwks_fetch_failures_total",
        jwt_cache_hit="jwt_cache_hits_total",
        jwt_cache_miss="jwt_cache_misses_total",
    ),
    _rule(
        r"(?P<scope>listener)\.(?P<name>(?!admin\b)(?:(?!\.http\.).)+?)(?:\.worker_(?P<worker>\d+))?\.",
        downstream_cx_total="downstream_connections_total",
        downstream_cx_active="downstream_connections",
        downstream_cx_overflow="downstream_connection_overflows_total",
        no_filter_chain_match="no_filter_chain_match_total",
    ),
    _rule(
        r"(?P<scope>http)\.(?P<name>(?!admin\b).+)\.",
        downstream_cx_total="downstream_connections_total",
        downstream_cx_active="downstream_connections",
        downstream_cx_ssl_total="downstream_tls_connections_total",
        downstream_rq_total="downstream_requests_total",
        downstream_rq_active="downstream_requests",
        downstream_rq_timeout="downstream_timeouts_total",
        **{f"downstream_rq_{n}xx": f"downstream_{n}xx_total" for n in range(2, 6)},
    ),
    _rule(
        rf"cluster\.(?P<name>.+){_NOT_A_COPY}\.",
        upstream_cx_total="upstream_connections_total",
        upstream_cx_active="upstream_connections",
        upstream_cx_connect_fail="upstream_connect_failures_total",
        upstream_cx_http1_total="upstream_http1_connections_total",
        upstream_cx_http2_total="upstream_http2_connections_total",
        upstream_cx_overflow="upstream_connection_overflows_total",
        upstream_rq_total="upstream_requests_total",
        upstream_rq_active="upstream_requests",
        upstream_rq_retry="upstream_retries_total",
        upstream_rq_timeout="upstream_timeouts_total",
        upstream_rq_pending_overflow="upstream_pending_overflows_total",
        **{f"upstream_rq_{n}xx": f"upstream_{n}xx_total" for n in range(2, 6)},
    ),
    _rule(
        r"(?P<name>listener_manager\.lds|cluster_manager\.cds|http\..+\.rds\..+|sds\..+)\.",
        update_success="config_updates_total",
        update_rejected="config_rejections_total",
        update_failure="config_failures_total",
        key_rotation_failed="key_rotation_failures_total",
    ),
    _rule(
        r"server\.",
        concurrency="workers",
        uptime="uptime_s",
        memory_allocated="memory_allocated_bytes",
        memory_heap_size="memory_heap_bytes",
        memory_physical_size="memory_physical_bytes",
    ),
    _rule(r"server\.(?P<thread>.+)\.", watchdog_miss="watchdog_misses_total"),
)  # fmt: skip

_MEMORY = {
    "allocated": "memory_allocated_bytes",
    "heap_size": "memory_heap_bytes",
    "total_physical_bytes": "memory_physical_bytes",
}

Reading = tuple[str, str, float]
"""(metric, labels, value)"""


def parse_stats(text: bytes) -> list[Reading]:
    """The selection from `/stats` as text (`name: number` a line; histograms and texts are passed over)."""
    readings: list[Reading] = []
    for line in text.decode("utf-8", "replace").splitlines():
        name, _, number = line.rpartition(": ")
        if number.isdecimal():
            selected = _select(name)
            if selected is not None:
                readings.append((*selected, float(number)))
    return readings


@lru_cache(maxsize=1 << 14)
def _select(name: str) -> tuple[str, str] | None:
    """(metric, labels) of a statistic that is in the selection. Names repeat: each is matched once."""
    for rule in _RULES:
        match = rule.pattern.fullmatch(name)
        if match:
            labels = {key: value for key, value in match.groupdict().items() if value is not None}
            return rule.metrics[labels.pop("m")], write_labels(labels)
    return None


def parse_memory(text: bytes) -> list[Reading]:
    """`/memory`. Raises ValueError for what is not its JSON."""
    values = json.loads(text)
    return [(metric, "", float(values[name])) for name, metric in _MEMORY.items() if name in values]


class EnvoySampler:
    """One Envoy. `source` names it; `fetch` asks its admin interface."""

    def __init__(self, source: str, fetch: Fetch, *, during: bool = False) -> None:
        """`during`: also read the memory (about 0.2 ms of Envoy's CPU) while a trial runs."""
        self._source = source
        self._fetch = fetch
        self._during = during

    @property
    def name(self) -> str:
        return f"envoy:{self._source}"

    def sample(self, moment: Moment) -> Sequence[Sample]:
        """An Envoy that does not answer yields `reachable` 0."""
        if moment is Moment.DURING and not self._during:
            return ()
        t_ns = time.monotonic_ns()
        try:
            readings = {} if moment is Moment.DURING else _by_key(parse_stats(self._fetch(STATS_PATH)))
            readings |= _by_key(parse_memory(self._fetch(MEMORY_PATH)))
        except (OSError, ValueError) as error:
            log.info("%s cannot be read: %s", self.name, error)
            return (Sample(t_ns, self._source, "reachable", "", 0.0),)
        samples = [
            Sample(t_ns, self._source, metric, labels, value) for (metric, labels), value in readings.items()
        ]
        samples.append(Sample(t_ns, self._source, "reachable", "", 1.0))
        return samples


def _by_key(readings: Iterable[Reading]) -> dict[tuple[str, str], float]:
    return {(metric, labels): value for metric, labels, value in readings}
