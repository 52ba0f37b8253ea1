"""Counting trials without a proxy: counts from a seed, whose truth is known (`counted_truth`).

    count of a window = requests x truth x exp(life of the proxies + their cell in this life + window) + idle

with normal noise of declared size. So an analysis must find the truth's steps, and no more.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from meshwise.archive.outcome import Measurement
from meshwise.archive.schema import TELEMETRY
from meshwise.findings.flag import UNCOUNTED
from meshwise.study.counting import Counting, PlannedWindow, WindowKind
from meshwise.study.design.counting import planned_windows
from meshwise.study.model import (
    Authorization,
    Cell,
    KeyType,
    MeshName,
    MtlsMode,
    Protocol,
    RuleKind,
    RulePlace,
    Trial,
)
from meshwise.telemetry.counting.seam import Function
from meshwise.telemetry.source import Source
from meshwise.testbed.counting import (
    INSTRUCTIONS,
    SYSTEM_CALLS,
    CountedValue,
    CountedWindow,
    counts_table,
    functions_table,
)
from meshwise.testbed.fake_truth import draws_of, normal_of

FAKE_COUNTER = "fake"
CALLER = {MeshName.ISTIO: 158_000, MeshName.LINKERD: 110_000}
CALLEE = {MeshName.ISTIO: 160_000, MeshName.LINKERD: 118_000}
"""Instructions per request of a sidecar that sends it on, and of one that receives it, in plaintext."""
MTLS = 10_500
"""What mutual TLS adds to either, for the head of a message."""
KIB = 900
"""Per KiB of payload in plaintext."""
KIB_MTLS = 2_600
"""What mutual TLS adds to it."""
AUTHORIZATION = {
    Authorization.NONE: 0,
    Authorization.NAMESPACE: 650,
    Authorization.REQUEST: 4_100,
    Authorization.FINE: 4_900,
}
"""What the receiving sidecar spends on it."""
RULE = 1_600
"""Each authorization entry scanned before the one that matches, there."""
RULES = {RuleKind.IDENTITY: 300, RuleKind.NAMESPACE: 900, RuleKind.PATH_SUFFIX: 450, RuleKind.CLAIM: 1_100}
"""Kinds of entries that cost otherwise."""
PROTOCOLS = {Protocol.HTTP1: 1.0, Protocol.HTTP2: 1.2, Protocol.GRPC: 1.3, Protocol.TCP: 0.3}
WAKE = 30_000
"""Of a request's instructions, those of waking up; shared by what is in flight at the same time."""
HANDSHAKE = {
    KeyType.RSA_2048: 7_400_000, KeyType.RSA_3072: 17_000_000,
    KeyType.ECDSA_P256: 2_100_000, KeyType.ECDSA_P384: 6_900_000,
}  # fmt: skip
RESUMED = 820_000
CONNECTION = 95_000
"""A new connection without TLS."""
CALLS = {"epoll_wait": 2.0, "readv": 2.0, "writev": 2.0}
"""System calls per request of a sidecar, one request in flight."""
FUNCTIONS = {
    MeshName.ISTIO: (
        "Envoy::Extensions::TransportSockets::Tls::SslSocket::doRead()",
        "Envoy::Extensions::Filters::Common::RBAC::RoleBasedAccessControlEngineImpl::handleAction()",
        "Envoy::Http::Http1::ConnectionImpl::dispatch()",
        "event_base_loop",
    ),
    MeshName.LINKERD: (
        "rustls::conn::ConnectionCore<Data>::process_new_packets",
        "linkerd_app_inbound::policy::http::authorize",
        "h2::hpack::decoder::Decoder::decode",
        "tokio::runtime::io::driver::Driver::turn",
    ),
}
"""Where a sidecar's instructions are: TLS, policy, the rest of a request, and what it does while idle."""
PROGRAM = "/proxy"
IDLE_PER_S = 260_000.0
IDLE_CALLS_PER_S = 24.0
REQUEST_NS = 8_000_000


@dataclass(frozen=True)
class CountingNoise:
    """Standard deviations on the log scale; of warm-up windows the mean as well."""

    life: float = 0.002
    """Of one life of a mesh's proxies: what the layout of their memory does to every cell alike."""
    cell: float = 0.0004
    """Of one cell in one life."""
    window: float = 0.0008
    warmup: float = 0.05


def counted_truth(cell: Cell) -> Mapping[tuple[str, str], float]:
    """(workload, `proxy`) -> instructions per request, one request in flight or as many as the cell has."""
    topology = cell.topology
    mtls = cell.posture.mtls in (MtlsMode.PERMISSIVE, MtlsMode.STRICT)
    kib = (cell.request_bytes + cell.response_bytes) / 1024
    per_leg = (MTLS if mtls else 0) + kib * (KIB + (KIB_MTLS if mtls else 0))
    woken = WAKE * (1 - 1 / min(cell.connections * cell.streams, 16))
    rules = _rules(cell)
    found = {}
    for workload in topology.workloads:
        called = workload != topology.workloads[0]
        legs = [CALLER[cell.mesh] + per_leg for _ in workload.calls]
        legs += [CALLEE[cell.mesh] + per_leg + rules] if called else []
        found[workload.name, "proxy"] = PROTOCOLS[cell.protocol] * sum(leg - woken for leg in legs)
    return found


def functions_truth(cell: Cell) -> Mapping[tuple[str, str], tuple[float, float]]:
    """(workload, `proxy`) -> which of its instructions per request are of TLS, and of policy."""
    mtls = cell.posture.mtls in (MtlsMode.PERMISSIVE, MtlsMode.STRICT)
    kib = (cell.request_bytes + cell.response_bytes) / 1024
    tls = (MTLS + kib * KIB_MTLS) if mtls else 0.0
    factor, first = PROTOCOLS[cell.protocol], cell.topology.workloads[0]
    return {
        (each.name, "proxy"): (
            factor * tls * (len(each.calls) + (each != first)),
            factor * _rules(cell) if each != first else 0.0,
        )
        for each in cell.topology.workloads
    }


def _rules(cell: Cell) -> float:
    """What the receiving sidecar spends on authorization."""
    scanned = RULES.get(cell.rule_kind, RULE) if cell.rule_place is not RulePlace.AFTER else 0
    return AUTHORIZATION[cell.posture.authorization] + scanned * cell.policy_count


def handshake_truth(cell: Cell, kind: WindowKind) -> float:
    """Instructions of the entry's sidecar per new connection, beside its request."""
    if cell.posture.mtls not in (MtlsMode.PERMISSIVE, MtlsMode.STRICT):
        return CONNECTION
    return CONNECTION + (RESUMED if kind is WindowKind.RESUMED else HANDSHAKE[cell.key_type])


def count(
    counting: Counting, trial: Trial, seed: int, noise: CountingNoise, uncounted: Collection[int] = ()
) -> Measurement:
    """The trial as a testbed counts it; `uncounted`: windows in which a request fails."""
    windows = list(enumerate(planned_windows(counting, trial.cell)))
    told = [_window(number, window, counting, trial, seed, noise) for number, window in windows]
    return Measurement(
        requests=_requests(windows, uncounted, trial.cell),
        telemetry=pa.schema([field for field in TELEMETRY.arrow if field.name != "trial_id"]).empty_table(),
        started_unix_ns=time.time_ns(),
        instrument={},
        flags=(str(UNCOUNTED(windows=", ".join(map(str, sorted(uncounted))))),) if uncounted else (),
        counts=counts_table(good := [each for each in told if each.number not in uncounted], FAKE_COUNTER),
        functions=functions_table(good),
    )


def _window(
    number: int, window: PlannedWindow, counting: Counting, trial: Trial, seed: int, noise: CountingNoise
) -> CountedWindow:
    cell = trial.cell
    asked = window.requests or counting.requests
    duration_ns = asked * REQUEST_NS
    entry = cell.topology.entry.name
    counted, functions = {}, {}
    parts = functions_truth(cell)
    for (workload, role), per_request in counted_truth(cell).items():
        generator = draws_of(seed, trial.trial_id, number, workload)
        level = (
            noise.life * normal_of(seed, "life", cell.mesh, *trial.life, workload)
            + noise.cell * normal_of(seed, "cell", cell.name, *trial.life, workload)
            + noise.window * generator.standard_normal()
        )
        if window.kind is WindowKind.WARMUP:
            level += noise.warmup * (1 + abs(generator.standard_normal()))
        # Who opens the new connections is no sidecar: only the entry's is asked.
        direct = window.kind in (WindowKind.FRESH, WindowKind.RESUMED)
        requests = window.requests if not direct or workload == entry else 0
        opened = handshake_truth(cell, window.kind) * window.connections if direct and requests else 0.0
        idle = IDLE_PER_S * duration_ns / 1e9 * np.exp(0.02 * generator.standard_normal())
        value = (per_request * requests + opened) * np.exp(level) + idle
        calls = _calls(requests, duration_ns, generator)
        source = str(Source(cell.mesh, trial.process_set, workload, role))
        tls, policy = parts[workload, role]
        own = [(tls * requests + opened) * np.exp(level), policy * requests * np.exp(level)]
        known = [round(each) for each in (*own, idle)]
        told = (*known[:2], round(value) - sum(known), known[2])
        functions[source] = {
            Function(PROGRAM, name): each
            for name, each in zip(FUNCTIONS[cell.mesh], told, strict=True)
            if each
        }
        counted[source] = [
            (INSTRUCTIONS, "", round(value)), *calls,
        ]  # fmt: skip
    return CountedWindow(
        number, window.kind, window.requests, window.connections, duration_ns, counted, functions
    )


def _calls(requests: int, duration_ns: int, generator: np.random.Generator) -> Iterator[CountedValue]:
    for name, per_request in CALLS.items():
        idle = generator.poisson(IDLE_CALLS_PER_S * duration_ns / 1e9) if name == "epoll_wait" else 0
        yield SYSTEM_CALLS, name, round(per_request * requests) + int(idle)


def _requests(windows: list[tuple[int, PlannedWindow]], uncounted: Collection[int], cell: Cell) -> pa.Table:
    """One after another; time 0 is where the warm-up ended."""
    failed = np.concatenate(
        [(np.arange(window.requests) == 0) & (number in uncounted) for number, window in windows]
    )
    warmup = sum(window.requests for _, window in windows if window.kind is WindowKind.WARMUP)
    sent = (np.arange(len(failed), dtype=np.int64) - warmup) * REQUEST_NS
    status = {Protocol.GRPC: 1000, Protocol.TCP: 0}.get(cell.protocol, 200)
    done = pa.array(sent + REQUEST_NS, mask=failed)
    return pa.table(
        {
            "intended_ns": sent,
            "sent_ns": sent,
            "first_byte_ns": done,
            "done_ns": done,
            "status": np.where(failed, 0, status).astype(np.int32),
            "bytes": np.where(failed, 0, cell.response_bytes).astype(np.int64),
            "error": pa.DictionaryArray.from_arrays(pa.array(failed.astype(np.int8)), ["", "reset"]),
        }
    )
