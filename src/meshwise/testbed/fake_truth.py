"""The times of the fake testbed without noise, and the sizes of its noise."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from meshwise.study.model import Authorization, Cell, MtlsMode, Protocol

HOP_US = 90.0
"""Median of one node without a sidecar."""

SIDECARS_US = 210.0
"""What the two sidecars of a hop add in plaintext."""

MODE_US: Mapping[MtlsMode | None, float] = {
    None: 0.0, MtlsMode.DISABLE: 0.0, MtlsMode.PERMISSIVE: 32.0, MtlsMode.STRICT: 33.0,
}  # fmt: skip
AUTHORIZATION_US = {
    Authorization.NONE: 0.0,
    Authorization.NAMESPACE: 4.0,
    Authorization.REQUEST: 18.0,
    Authorization.FINE: 30.0,
}
TRACED_US = 120.0
"""What the two sidecars of a hop add to a request that is traced."""
PROTOCOL_FACTOR = {Protocol.HTTP1: 1.0, Protocol.HTTP2: 1.1, Protocol.GRPC: 1.25, Protocol.TCP: 0.6}
STATUS = {Protocol.HTTP1: 200, Protocol.HTTP2: 200, Protocol.GRPC: 1000, Protocol.TCP: 0}
TAIL = 0.35
"""Standard deviation of the log of service times within a trial."""

CPU_SHARE = 0.55
"""Proxy CPU per request as a share of what the sidecars add to the median."""

SAMPLES_PER_S = 5
WARMING_S = 2.0


@dataclass(frozen=True)
class SimulatedNoise:
    """Standard deviations on the log scale."""

    block: float = 0.03
    execution: float = 0.015
    """Of one life of one mesh's set of processes."""
    run: float = 0.01
    """Of the moments in which a round is measured; a trial apart is a round of one."""
    arm: float = 0.0
    """Of an arm beside the others of its round."""
    company: float = 0.0
    """No noise: what an arm beside others takes more of than one alone, in time and CPU."""


@dataclass(frozen=True)
class Truth:
    """What a cell would show without noise."""

    service_us: float
    """Median."""
    proxy_cpu_us: float
    """CPU per request, all sidecars together."""
    proxy_rss_bytes: float
    """Of one sidecar."""


def truth(cell: Cell) -> Truth:
    protocol = PROTOCOL_FACTOR[cell.protocol]
    bytes_us = (cell.request_bytes + cell.response_bytes) * 0.002
    sidecars = 0.0
    if cell.posture.mtls is not None:
        scanned = cell.policy_count * 0.02
        sidecars = (
            SIDECARS_US + MODE_US[cell.posture.mtls] + AUTHORIZATION_US[cell.posture.authorization] + scanned
        ) + TRACED_US * cell.traced_share
    hops = cell.length
    return Truth(
        service_us=hops * protocol * (HOP_US + bytes_us + sidecars),
        proxy_cpu_us=hops * protocol * sidecars * CPU_SHARE,
        proxy_rss_bytes=48e6 + 2e6 * len(cell.posture.name) + 4_000 * cell.policy_count,
    )


CAPACITY_CPUS = 0.1
"""CPUs of a saturation study: few, so that a search needs few requests. The telemetry shows them as one CPU
that is as much slower."""
NODE_CPU_US = 40.0
"""CPU per request of a node in a saturation study."""
INSTRUMENT_CPU, POD_CPU = 0, 1


def capacity_rps(cell: Cell) -> float:
    """Where a cell's backlog begins to grow; its knee lies a little below."""
    return CAPACITY_CPUS * 1e6 / (cell.length * NODE_CPU_US + truth(cell).proxy_cpu_us)


def normal_of(seed: int, *key: object) -> float:
    """A standard normal number that belongs to this key and the seed."""
    return float(draws_of(seed, *key).standard_normal())


def draws_of(seed: int, *key: object) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32("/".join(map(str, key)).encode())])
