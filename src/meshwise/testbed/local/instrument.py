"""The instrument of one trial: what it is told, and one running process of it in a pod.

The second client of a cell with a share of plaintext, or of another namespace, is the same thing in the
outsider's pod.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from meshwise.core.errors import MeshwiseError
from meshwise.core.modes import PRIVATE_DIRECTORY, make_directory, write_private_text
from meshwise.core.patience import USUAL, Patience
from meshwise.core.process import OwnedProcess
from meshwise.load.dealt import Dealt
from meshwise.load.payloads import RESPONSE_SLOT
from meshwise.load.records import SCHEMA, peek, read_records
from meshwise.load.report import LoadReport
from meshwise.load.spec import LoadSpec, TlsSpec
from meshwise.load.trace import write_trace
from meshwise.load.traced import trace_key
from meshwise.mesh.probe import Entrance
from meshwise.mesh.request import Headers, of_another_tenant
from meshwise.service.plan import HEADER as PLAN_HEADER
from meshwise.stats.arrays import BoolArray
from meshwise.study.design.needs import OWN_FILES
from meshwise.study.model import Cell, Study, Trial
from meshwise.testbed.layout import Environment
from meshwise.testbed.local.pod import Pod

MESH_CLIENT, OUTSIDE_CLIENT, STRANGE_CLIENT = "mesh", "outside", "stranger"
FORBIDDEN = "forbidden"
"""Column of what was recorded."""


def replayed(study: Study, home: Path) -> Path | None:
    """The times that the study replays, written below `home` once for all trials; None if it replays none."""
    shape = study.trial.shape
    if shape is None or shape.times is None or shape.trace is None:
        return None
    path = home / "trace"
    write_trace(shape.trace, study.trial.duration_ns, path)
    return path


def load_spec(
    study: Study,
    trial: Trial,
    environment: Environment,
    request: Headers,
    cpu: int | None,
    trace: Path | None = None,
) -> LoadSpec:
    """The load of a trial's client inside the mesh.

    All trials of a block meet the same arrival times (common random numbers): one source of noise less
    in every paired difference. But each step of a search meets its own, or a confirmation would be none.
    `trace`: the times that the study replays, as `load.trace` wrote them.
    """
    cell = trial.cell
    step = "" if trial.step is None else f" step {trial.step}"
    shape = study.trial.shape
    return LoadSpec(
        address=environment.address(cell.topology.entry.name),
        port=cell.topology.entry.port(cell.protocol),
        authority=environment.authority(cell),
        protocol=cell.protocol,
        method=request.method,
        path=request.path,
        headers=_headers(cell, request),
        other_share=0.0 if cell.stranger_share else cell.forbidden_share / cell.inside_share,
        other_headers=_headers(cell, of_another_tenant(request)),
        body_bytes=cell.request_bytes,
        response_bytes=cell.response_bytes,
        rate_rps=cell.rate_rps * cell.inside_share,
        arrivals=study.trial.arrivals,
        seed=zlib.crc32(f"{study.seed} block {trial.block}{step}".encode()),
        warmup_ns=study.trial.warmup_ns,
        duration_ns=study.window_ns(trial),
        connections=cell.connections,
        streams=cell.streams,
        timeout_ns=study.trial.timeout_ns,
        requests_per_connection=cell.requests_per_connection,
        churn_per_s=cell.churn_per_s * cell.inside_share,
        streaming=cell.streaming,
        messages=cell.messages,
        request_sizes=cell.request_sizes,
        response_sizes=cell.response_sizes,
        shape=shape.shared(cell.inside_share) if shape and not shape.times else None,
        trace=str(trace) if trace else None,
        think=study.trial.think,
        traced_share=cell.traced_share,
        trace_key=trace_key(study.seed, trial.trial_id),
        connect_ns=round(environment.patience.connect_s * 1e9),
        cpu=cpu,
    )


def _headers(cell: Cell, request: Headers) -> tuple[tuple[str, str], ...]:
    """Where answers have drawn sizes, the plan says for each request how large its own is to be."""
    if not cell.response_sizes:
        return tuple(request.headers)
    fixed, drawn = f"bytes={cell.response_bytes};", f"bytes={RESPONSE_SLOT};"
    return tuple(
        (name, value.replace(fixed, drawn, 1) if name == PLAN_HEADER else value)
        for name, value in request.headers
    )


def outside_spec(inside: LoadSpec, trial: Trial, environment: Environment) -> LoadSpec:
    """The load of the plaintext client: its share of rate and connections, dialling the pod itself."""
    cell = trial.cell
    return replace(
        inside,
        address=environment.placement[cell.topology.entry.name].pod_ip,
        seed=inside.seed ^ 1,
        trace_key=trace_key(inside.trace_key, OUTSIDE_CLIENT),
        other_share=0.0,
        **_part(inside, cell, cell.plaintext_share),
    )


def stranger_spec(inside: LoadSpec, trial: Trial, entrance: Entrance) -> LoadSpec:
    """The load of the client of another namespace, which asks for what is allowed. `entrance`: how such a one
    calls the entry's sidecar. The server's certificate has no name of a host, and is not verified: that it is
    the right one the proof has shown."""
    cell, secure = trial.cell, entrance.tls
    assert secure is not None, "asked for where there is mutual TLS"
    assert secure.identity is not None, "it has a certificate"
    tls = TlsSpec(
        secure.server_name or "",
        cert_file=str(secure.identity.chain), key_file=str(secure.identity.key), alpn=secure.alpn,
    )  # fmt: skip
    return replace(
        inside,
        address=entrance.address,
        port=entrance.port,
        tls=tls,
        seed=inside.seed ^ 2,
        trace_key=trace_key(inside.trace_key, STRANGE_CLIENT),
        **_part(inside, cell, cell.stranger_share),
    )


def _part(inside: LoadSpec, cell: Cell, share: float) -> dict[str, Any]:
    """Rate and connections of a client outside the mesh that sends this share of the load."""
    return {
        "rate_rps": cell.rate_rps * share,
        "churn_per_s": cell.churn_per_s * share,
        "connections": max(1, round(cell.connections * share)),
        "shape": inside.shape and inside.shape.shared(share / cell.inside_share),
    }


class NotStarted(Exception):
    """An instrument ended before it sent anything."""

    def __init__(self, why: str, *, for_others: bool = False) -> None:
        """`for_others`: this client was connected; other targets of the same process were not."""
        super().__init__(why)
        self.for_others = for_others


class _Said:
    """The first line that a process says on its pipe; kept, because the arms of a round share one process."""

    def __init__(self, process: OwnedProcess) -> None:
        assert process.stdout is not None
        self._pipe = process.stdout
        os.set_blocking(self._pipe.fileno(), False)
        self._bytes = bytearray()

    def whole_line(self) -> bool:
        if b"\n" not in self._bytes:
            self._bytes.extend(self._pipe.read() or b"")
        return b"\n" in self._bytes

    def line(self) -> bytes:
        return bytes(self._bytes).partition(b"\n")[0]


@dataclass(frozen=True)
class Client:
    """What an instrument is asked to do, and in whose pod."""

    name: str
    pod: Pod
    spec: LoadSpec


@dataclass(frozen=True)
class Instrument:
    """One running instrument, as one client sees it; its files are in `directory`."""

    client: str
    process: OwnedProcess
    said: _Said = field(repr=False)
    directory: Path
    spec: LoadSpec
    patience: Patience = USUAL
    target: int = 0
    """Its number among those of the process."""
    label: Callable[[str, pa.Table], pa.Table] | None = None
    """Gives further columns to what this client recorded, in the order of its requests."""

    def wait_started(self) -> int:
        """Wait until it has connected: its first intended time, CLOCK_MONOTONIC. Raises NotStarted; what the
        process raises when it ends or says nothing: MW211, MW212."""
        self.process.wait_until(self.said.whole_line, "connected", self.patience.start_s)
        event = json.loads(self.said.line())
        if event["event"] != "started":
            refused = event["targets"]
            own = refused.get(str(self.target))
            why, for_others = own or event["what"], bool(refused) and own is None
            raise NotStarted(f"{why} [{event['code']}]", for_others=for_others)
        return int(event["start_ns"])

    def peek(self) -> tuple[int, float | None]:
        """(answers so far, median response time of the last second in us)."""
        return peek(self.directory)

    def requests(self) -> pa.Table:
        """What it recorded, with the column `client`, and `forbidden` where some are; also of one that was
        killed. Empty if nothing."""
        recorded = (self.directory / "records").exists()
        table = read_records(self.directory) if recorded else SCHEMA.empty_table()
        if self.label is not None:
            table = self.label(self.client, table)
        codes = pa.repeat(pa.scalar(0, pa.int8()), table.num_rows)
        client = pa.DictionaryArray.from_arrays(codes, [self.client])
        table = table.append_column("client", client)
        forbidden = self._forbidden(table.num_rows)
        return table if forbidden is None else table.append_column(FORBIDDEN, pa.array(forbidden))

    def _forbidden(self, count: int) -> BoolArray | None:
        """Which of its requests a stricter posture forbids; None: it has none."""
        if self.client == STRANGE_CLIENT:
            return np.ones(count, dtype=np.bool_)
        return self.spec.other.marks(count) if self.spec.other else None

    def report(self) -> Mapping[str, object]:
        """Its own report; empty if it was killed before it could write one."""
        path = self.directory / "report.json"
        return LoadReport.from_json(path.read_text()).to_dict() if path.exists() else {}


def start(client: Client, directory: Path, cpus: tuple[int, ...]) -> Instrument:
    """Returns when the process runs, not yet when it sends; the caller owns `process`."""
    return _start([client], directory, cpus, client.spec.seed)[0]


def start_round(
    clients: Sequence[Sequence[Client]], directory: Path, cpus: tuple[int, ...], seed: int, owner: ExitStack
) -> list[list[Instrument]]:
    """The instruments of each arm's clients; `owner` has each process from the moment it runs. Several arms,
    which have one client each, share one process, whose stream is dealt to them; `seed` is of its arrivals
    and order."""
    if len(clients) == 1:
        alone = []
        for client in clients[0]:
            alone.append(start(client, directory / client.name, cpus))
            owner.enter_context(alone[-1].process)
        return [alone]
    together = [client for (client,) in clients]
    started = _start(together, directory / f"round-of-{len(together)}", cpus, seed)
    owner.enter_context(started[0].process)
    return [[one] for one in started]


def _start(clients: Sequence[Client], directory: Path, cpus: tuple[int, ...], seed: int) -> list[Instrument]:
    pod, others = clients[0].pod, clients[1:]
    several = bool(others)
    # The process is in the first client's pod; the sockets of the others are made in theirs.
    targets = [
        clients[0].spec,
        *(replace(each.spec, network=f"/proc/self/fd/{each.pod.network_fd}") for each in others),
    ]
    make_directory(directory, PRIVATE_DIRECTORY)
    write_private_text(directory / "spec.json", Dealt(tuple(targets), seed).to_json())
    argv = (sys.executable, "-m", "meshwise.load", "--spec", str(directory / "spec.json"))
    process = pod.start(
        "instrument",
        (*argv, "--out", str(directory)),
        dict(os.environ),
        directory / "log",
        cpus=cpus,
        open_files=sum(spec.connections for spec in targets) + OWN_FILES,
        descriptors=tuple(each.pod.network_fd for each in others),
        pipe_stdout=True,
    )
    said = _Said(process)
    own = [directory / str(number) for number in range(len(clients))] if several else [directory]
    return [
        Instrument(client.name, process, said, where, client.spec, pod.patience, number)
        for number, (client, where) in enumerate(zip(clients, own, strict=True))
    ]


def run_once(start: Callable[[], Instrument]) -> pa.Table:
    """Run an instrument to its end; what it recorded, nothing if it did not get so far as to send."""
    one = start()
    with one.process:
        try:
            one.wait_started()
        except (MeshwiseError, NotStarted):
            return one.requests()
        sending_s = (one.spec.warmup_ns + one.spec.duration_ns + one.spec.timeout_ns) / 1e9
        one.process.wait(sending_s + one.patience.report_s)
    return one.requests()
