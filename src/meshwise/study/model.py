"""The values of a study, in the glossary's words. Frozen values; no file, no process.

`study.file.read` reads a YAML file into a `Study`; `study.design.blocks` expands it into `Trial`s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from meshwise.study.bank import DEFAULT_WEIGHTS
from meshwise.study.bank import BankOperation as BankOperation
from meshwise.study.bank import Stores as Stores
from meshwise.study.counting import Counting as Counting
from meshwise.study.factors import FACTORS
from meshwise.study.graph.model import ServiceGraph as ServiceGraph
from meshwise.study.levels import OF_A_REQUEST as OF_A_REQUEST
from meshwise.study.levels import ForbiddenBy as ForbiddenBy
from meshwise.study.levels import Http1Transport as Http1Transport
from meshwise.study.levels import KeyType as KeyType
from meshwise.study.levels import MeshName as MeshName
from meshwise.study.levels import Resumption as Resumption
from meshwise.study.levels import RuleKind as RuleKind
from meshwise.study.levels import RulePlace as RulePlace
from meshwise.study.levels import SanMatch as SanMatch
from meshwise.study.levels import TlsGroup as TlsGroup
from meshwise.study.levels import TlsVersion as TlsVersion
from meshwise.study.load.profile import LoadProfile as LoadProfile
from meshwise.study.load.profile import Think as Think
from meshwise.study.protocol import SERVICE_PORTS as SERVICE_PORTS
from meshwise.study.protocol import Layer as Layer
from meshwise.study.protocol import Protocol as Protocol
from meshwise.study.protocol import Streaming as Streaming
from meshwise.study.sampling import Sampling as Sampling
from meshwise.study.sampling import SamplingKind as SamplingKind
from meshwise.study.security import LADDER as LADDER
from meshwise.study.security import NO_MESH as NO_MESH
from meshwise.study.security import Authorization as Authorization
from meshwise.study.security import MtlsMode as MtlsMode
from meshwise.study.security import Posture as Posture
from meshwise.study.timeline import Timeline as Timeline
from meshwise.study.topology import Topology as Topology
from meshwise.study.topology import TopologyKind as TopologyKind
from meshwise.study.topology import Workload as Workload


@dataclass(frozen=True, order=True)
class Cell:
    """One combination of levels. Equality and `name` cover every factor."""

    mesh: MeshName
    posture: Posture
    protocol: Protocol
    rate_rps: float
    """0 in a saturation study, where the rate is searched for."""
    request_bytes: int
    response_bytes: int
    connections: int
    streams: int
    """Concurrent streams per connection; 1 for http1 and tcp."""
    shape: TopologyKind
    length: int
    """Nodes in the chain, leaves of a fan-out or aggregation, levels of the tree; 1 for graph and bank."""
    key_type: KeyType
    policy_count: int
    """Authorization entries scanned before the one that matches, unless `rule_place` says otherwise (0 = only
    that one)."""
    plaintext_share: float
    """Share of the load that comes from a client outside the mesh; 0 except in `permissive`."""
    http1_transport: Http1Transport = Http1Transport.DEFAULT
    tls_group: TlsGroup = TlsGroup.DEFAULT
    graph: ServiceGraph | None = None
    """Who calls whom, where the shape is `graph`."""
    stores: Stores = Stores.MESHED
    """How the services of the bank reach its stores; neutral without the bank, and without a mesh."""
    requests_per_connection: int = 0
    """After so many a connection ends; a new one is opened by the request that needs it. 0: all are kept."""
    churn_per_s: float = 0.0
    """So many of the kept connections are replaced per second."""
    streaming: Streaming = Streaming.NONE
    """grpc only; one stream is one request."""
    messages: int = 1
    """Per stream."""
    request_sizes: str = ""
    """A distribution (`study.load.payload`), whose mean is `request_bytes`; empty: all have that size."""
    response_sizes: str = ""
    rule_kind: RuleKind = RuleKind.WHOLE
    """What the entries of `policy_count` ask for."""
    rule_place: RulePlace = RulePlace.BEFORE
    """Where they stand."""
    chain_depth: int = 1
    """Certificates of authorities that are sent behind the leaf."""
    crl_entries: int = 0
    """Revoked certificates on the list that both sides read; 0: there is no list."""
    san_match: SanMatch = SanMatch.EXACT
    tls_version: TlsVersion = TlsVersion.DEFAULT
    certificate_life_s: int = 86400
    resumption: Resumption = Resumption.DEFAULT
    traced_share: float = 0.0
    """Of the requests: so many carry a trace context that says they are sampled. 0: nobody traces."""
    forbidden_share: float = 0.0
    """Of the requests: so many that a posture with authorization forbids."""
    forbidden_by: ForbiddenBy = ForbiddenBy.REQUEST

    @cached_property
    def topology(self) -> Topology:
        return Topology(self.shape, self.length, self.graph)

    @property
    def stranger_share(self) -> float:
        """Of the load: what a client with an identity of another namespace sends."""
        return self.forbidden_share if self.forbidden_by is ForbiddenBy.IDENTITY else 0.0

    @property
    def inside_share(self) -> float:
        """Of the load: what the client inside the mesh sends."""
        return 1 - self.plaintext_share - self.stranger_share

    @property
    def name(self) -> str:
        """Readable, unique: `istio/strict/http1/800rps/...`; used in tables and file names nowhere else."""
        parts = (factor.named(self) for factor in FACTORS if factor.named is not None)
        return "/".join(part for part in parts if part)


class Role(StrEnum):
    """Why a trial exists: for its cell, as the second of the A/A pair, on the twin set of processes, ..."""

    CELL = "cell"
    AA = "aa"
    TWIN = "twin"
    REFERENCE = "reference"
    """An arm of the first part of a round that was divided, once more in each further part."""
    PROFILE = "profile"
    """Profilers look at its processes; of its times nothing is made."""
    COUNT = "count"
    """Its cell's instructions and system calls are counted; of its times nothing is made."""
    ALONE = "alone"
    """Of a cell that is an arm of a round, once more without company, on the same processes."""

    @property
    def timed(self) -> bool:
        """Whether anything is made of its times."""
        return self not in (Role.COUNT, Role.PROFILE)


class Phase(StrEnum):
    """Where in a search for saturation a trial stands."""

    RAMP = "ramp"
    BISECT = "bisect"
    CONFIRM = "confirm"
    SOAK = "soak"
    """Long, below the knee."""
    AGAIN = "again"
    """Down from the knee, rested: what the way down is compared with."""
    OVERLOAD = "overload"
    DOWN = "down"
    """Coming down from overload."""


@dataclass(frozen=True)
class Objective:
    """What a rate must hold for the whole measured window."""

    quantiles: tuple[tuple[float, int], ...]
    """(p, at most this response time in ns)."""
    errors: float
    """At most this share of failed requests."""
    completed: float
    """At least this share of what was intended is answered within the window."""

    @property
    def words(self) -> str:
        """`p99 <= 20 ms, errors <= 0.1 %, completed >= 99 %`."""
        times = [
            f"p{f'{p:.4f}'[2:].rstrip('0').ljust(2, '0')} <= {ns / 1e6:g} ms" for p, ns in self.quantiles
        ]
        return ", ".join(
            [*times, f"errors <= {100 * self.errors:g} %", f"completed >= {100 * self.completed:g} %"]
        )


@dataclass(frozen=True)
class Search:
    """How a saturation study looks for the highest rate that holds its objective (`study.design.search`)."""

    objective: Objective
    start_rps: float
    limit_rps: float
    """Not tried above."""
    confirm: int
    """Equal results that settle each end of the bracket."""
    steps: int
    """Trials on the way up after which a search ends undecided."""
    idle_ns: int
    """Rest before each trial."""
    descend: bool
    """Whether to come down from overload again (hysteresis)."""
    soak_ns: int = 0
    """Measured window of a soak below the knee; 0: there is none."""
    soak_share: float = 0.8
    """Its rate, of the highest that held."""


@dataclass(frozen=True)
class Trial:
    """One cell in one block. `attempt` counts re-tries at the end of the block (0 = first)."""

    trial_id: str
    """`b003-p07` (block 3, position 7) and `-r1` for a re-try; unique in the study, used as file name."""
    block: int
    execution: int
    position: int
    cell: Cell
    role: Role = Role.CELL
    attempt: int = 0
    search: str = ""
    """The design's trial_id of the search that this trial is a step of; empty if it is none."""
    step: int | None = None
    """Its number in the search, from 0."""
    phase: Phase | None = None
    round: int = -1
    """The trials of a round run at the same time; counts from 0 over the study, in the order of running. -1:
    the trial is of no design."""
    arm: int = 0
    """Place in its round, from 0."""
    process_set: str = "a"
    """Which of its mesh's sets of processes it has; arms of a round have different ones."""

    @property
    def life(self) -> tuple[int, str]:
        """Which life of its mesh's proxies it is in: trials of one mesh and life share their processes."""
        return self.execution, self.process_set


class Arrangement(StrEnum):
    """Whether trials run in rounds, or one at a time."""

    TOGETHER = "together"
    APART = "apart"


class ControlPlane(StrEnum):
    """Who makes the configuration of Istio's sidecars."""

    MESHWISE = "meshwise"
    ISTIOD = "istiod"


class Arrivals(StrEnum):
    CONSTANT = "constant"
    UNIFORM = "uniform"
    POISSON = "poisson"
    CLOSED = "closed"


@dataclass(frozen=True)
class TrialPlan:
    """How long a trial is, and how it is driven."""

    warmup_ns: int
    duration_ns: int
    arrivals: Arrivals
    timeout_ns: int
    shape: LoadProfile | None = None
    """How the rate moves within the measured window; None: it does not."""
    think: Think | None = None
    """Of closed arrivals; None: the next request follows its answer at once."""
    mix: tuple[tuple[BankOperation, float], ...] = tuple(DEFAULT_WEIGHTS.items())
    """What clients of the bank ask for, with weights."""
    timeline: Timeline = field(default_factory=Timeline)
    """What is done to trials in their measured window."""


@dataclass(frozen=True)
class Control:
    """The A/A control of every block: `same` processes (time noise), `twin` processes (layout bias)."""

    same: tuple[Cell, ...] = ()
    twin: tuple[Cell, ...] = ()
    halves: tuple[Cell, ...] = ()
    """Arms whose requests are divided in two by the analysis (time alone); no trials of their own."""


@dataclass(frozen=True)
class NotApplicable:
    """A cell that its mesh cannot express, with the reason; shown, never silently replaced."""

    cell: Cell
    reason: str


@dataclass(frozen=True)
class Study:
    """The whole question, validated. `source` is the text of the file, kept in the archive as it was."""

    name: str
    seed: int
    environments: tuple[MeshName, ...]
    cells: tuple[Cell, ...]
    not_applicable: tuple[NotApplicable, ...]
    control: Control
    trial: TrialPlan
    blocks: int
    blocks_per_execution: int
    proxy_workers: int
    pin_cpus: bool
    outlier_rule: str
    primary_metrics: tuple[str, ...]
    confidence: float
    margin: float | None = None
    """Change that does not matter, as a share; None: none was declared, and nothing is called equivalent."""
    layer: Layer | None = None
    """Asked for beside the file: only cells of this layer were kept."""
    arrangement: Arrangement = Arrangement.APART
    alone: int = 0
    """Trials of every block that run alone, of cells that have company in its rounds (`design.alone`)."""
    search: Search | None = None
    """Of a saturation study, whose cells have no rate (0): it is what is searched for."""
    counting: Counting | None = None
    """What is counted in trials of their own; None: nothing."""
    control_plane: ControlPlane = ControlPlane.MESHWISE
    """Of Istio."""
    sampling: Sampling = field(default_factory=Sampling)
    profile: bool = False
    """Whether each cell has a trial in which profilers look at its processes."""
    timed: bool = True
    """False: only the counting trials are run."""
    notes: tuple[str, ...] = ()
    """What its files say and has no effect, for the plan."""
    source: str = field(repr=False, default="")

    @property
    def executions(self) -> int:
        return -(-self.blocks // self.blocks_per_execution)

    def window_ns(self, trial: Trial) -> int:
        """How long the trial is measured: a soak has a length of its own."""
        if self.search is not None and trial.phase is Phase.SOAK:
            return self.search.soak_ns
        return self.trial.duration_ns
