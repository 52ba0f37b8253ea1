"""What is done to a trial while it runs, and when: declared times or periods, made into occurrences. Pure.

An occurrence is one carrying-out of one entry of the study's `events`. What each act means to a mesh is
`mesh.changes`; who carries it out on this machine is `testbed.local.happening`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from meshwise.study.security import Posture


class Rotated(StrEnum):
    LEAF = "leaf"
    """Certificates of the workloads; their keys stay."""
    ISSUER = "issuer"
    """The authority that signs them, under the same trust anchor; and so all leaves."""
    ANCHOR = "anchor"
    """The trust anchor, and so all below it."""


class Restarted(StrEnum):
    PROXY = "proxy"
    CONTROLLER = "controller"
    SERVICE = "service"


class Failing(StrEnum):
    RENEWAL = "renewal"
    """Of certificates: the authority does not sign."""
    CONTROLLER = "controller"
    """The control plane."""
    POLICY = "policy"
    """The part of the control plane that hands out policies, where it is one of its own."""


class RenewalFault(StrEnum):
    REFUSED = "refused"
    SLOW = "slow"
    """It answers late; of a controller: it stands still, with its connections open."""
    GONE = "gone"


@dataclass(frozen=True)
class Rotate:
    what: Rotated
    spread_ns: int = 0
    """The pods rotate evenly over this time; 0: all at once."""
    overlap: bool = True
    """Of an anchor: both are trusted until every leaf is of the new one. False is a fault, labelled so."""


@dataclass(frozen=True)
class PushPolicies:
    """Policies that no request meets: what is measured is that they are pushed and scanned."""

    count: int
    relevant: bool = False
    """On the workloads that are called; else on others, which leaves these sidecars' rules as they are."""


@dataclass(frozen=True)
class ChangePosture:
    """Repeated, it alternates between this posture and the cell's own (`Timeline.occurrences`)."""

    posture: Posture


@dataclass(frozen=True)
class Restart:
    what: Restarted
    drain: bool = False
    """It ends as its mesh ends it; else it is killed."""
    workload: str = ""
    """Empty: one after the other, from the entry inwards, the client's last."""


@dataclass(frozen=True)
class Fail:
    what: Failing
    lasts_ns: int
    how: RenewalFault = RenewalFault.REFUSED


@dataclass(frozen=True)
class Skew:
    """The authority's clock is wrong by so much (positive: ahead), and what it signs says so."""

    by_ns: int
    lasts_ns: int


Act = Rotate | PushPolicies | ChangePosture | Restart | Fail | Skew


@dataclass(frozen=True)
class Declared:
    """One entry of `events`: at these times of the measured window, or every so often from its start on."""

    act: Act
    at_ns: tuple[int, ...] = ()
    every_ns: int = 0

    def times_ns(self, window_ns: int) -> tuple[int, ...]:
        """Rising; those before the end of the window, and of a period those that are over before it."""
        if self.every_ns:
            last_ns = min(window_ns - 1, window_ns - lasts_ns(self.act))
            return tuple(range(self.every_ns, last_ns + 1, self.every_ns))
        return tuple(sorted(at_ns for at_ns in self.at_ns if at_ns < window_ns))


@dataclass(frozen=True)
class Occurrence:
    number: int
    """Counts from 0 in the trial, in the order of time."""
    entry: int
    """Place of its declaration in the study's `events`."""
    act: Act
    intended_ns: int
    """From the start of the measured window."""
    repeat: int = 0
    """How often the same entry has come before."""

    @property
    def back(self) -> bool:
        """Of a change of posture: whether it is the way back to the cell's own."""
        return isinstance(self.act, ChangePosture) and self.repeat % 2 == 1


@dataclass(frozen=True)
class Timeline:
    """Nothing, as it is made by default."""

    declared: tuple[Declared, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.declared)

    def occurrences(self, window_ns: int) -> tuple[Occurrence, ...]:
        """All within the measured window, in the order of time; at the same time in the file's order."""
        due = sorted(
            (at_ns, entry, repeat)
            for entry, each in enumerate(self.declared)
            for repeat, at_ns in enumerate(each.times_ns(window_ns))
        )
        return tuple(
            Occurrence(number, entry, self.declared[entry].act, at_ns, repeat)
            for number, (at_ns, entry, repeat) in enumerate(due)
        )

    def overlapping(self, window_ns: int) -> Iterator[tuple[Occurrence, Occurrence]]:
        """Pairs that keep apart (`keep_apart`), the later of which is intended before the earlier is over; of
        each kind only the one that is over last."""
        latest: dict[str, Occurrence] = {}
        for each in self.occurrences(window_ns):
            for former in latest.values():
                if keep_apart(former.act, each.act) and _over_ns(former) > each.intended_ns:
                    yield former, each
            kind = kind_of(each.act)
            if kind not in latest or _over_ns(each) >= _over_ns(latest[kind]):
                latest[kind] = each


LEAST_APART_NS = 10**9
"""Between events of one kind: a proxy takes most of a second to be back, and a push up to a tenth of one to
be taken up."""
LEAST_PERIOD_NS = {"rotate": 5 * 10**9}
"""Of what has a longer one than that. Linkerd's proxy does not ask for a new certificate more often."""


def lasts_on(act: Act) -> bool:
    """Whether it goes on until it is ended, while other things are done."""
    return isinstance(act, Fail | Skew)


def lasts_ns(act: Act) -> int:
    """How long an act goes on by its declaration; 0 for what is over when it is done."""
    match act:
        case Rotate():
            return act.spread_ns
        case Fail() | Skew():
            return act.lasts_ns
        case _:
            return 0


def room_ns(act: Act) -> int:
    """From its beginning until another of its kind may begin."""
    return max(lasts_ns(act), LEAST_APART_NS)


def _over_ns(occurrence: Occurrence) -> int:
    return occurrence.intended_ns + room_ns(occurrence.act)


def least_period_ns(act: Act) -> int:
    return max(LEAST_PERIOD_NS.get(kind_of(act), LEAST_APART_NS), lasts_ns(act))


def kind_of(act: Act) -> str:
    """What events of one kind have in common: rotations replace the same files, whatever they rotate."""
    return "rotate" if isinstance(act, Rotate) else event_name(act)


def keep_apart(one: Act, other: Act) -> bool:
    """Whether one may not begin before the other is over: those of one kind; and a control plane that is gone
    or stands still, and whatever it is restarted for or told to fail in."""
    if kind_of(one) == kind_of(other):
        return True
    both = one, other
    return any(map(_no_controller, both)) and all(map(_of_controller, both))


def _no_controller(act: Act) -> bool:
    return isinstance(act, Fail) and act.what is Failing.CONTROLLER


def _of_controller(act: Act) -> bool:
    return lasts_on(act) or (isinstance(act, Restart) and act.what is Restarted.CONTROLLER)


def event_name(act: Act) -> str:
    """The column `event` of the archive: `rotate leaf`, `push policies`, `posture`, `restart proxy`,
    `fail renewal`, `skew`."""
    match act:
        case Rotate():
            return f"rotate {act.what}"
        case PushPolicies():
            return "push policies"
        case ChangePosture():
            return "posture"
        case Restart():
            return f"restart {act.what}"
        case Fail():
            return f"fail {act.what}"
        case Skew():
            return "skew"
