"""Why a measured window does not hold its objective, or says nothing of it: every kind once.

An archive has reasons as text, `; ` between them. Reading is the inverse of writing, by the same templates;
text that none of them made (what ended a trial that failed) is kept as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property


class Blame(StrEnum):
    """What caused it."""

    SYSTEM = "system"
    INSTRUMENT = "instrument"
    HOST = "host"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ReasonKind:
    code: str
    template: str
    blame: Blame = Blame.SYSTEM

    def __call__(self, **facts: str | float) -> Reason:
        return Reason(self, self.template.format(**facts))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(".+?".join(map(re.escape, re.split(r"\{[^}]*\}", self.template))))


@dataclass(frozen=True)
class Reason:
    kind: ReasonKind
    words: str

    @property
    def short(self) -> str:
        """In a table: `p99`, `errors`, `backlog`."""
        return self.kind.code or self.words.partition(" ")[0]


QUANTILE = ReasonKind("", "p{percent:g} {shown}, limit {limit_ms:g} ms")
ERRORS = ReasonKind("errors", "errors {percent:.2g} %, limit {limit:g} %")
COMPLETED = ReasonKind("completed", "completed {percent:.1f} %, at least {least:g} %")
BACKLOG = ReasonKind("backlog", "a backlog grew by {ms:.1f} ms over the window")
NOTHING_INTENDED = ReasonKind("nothing", "nothing was intended within the window", Blame.UNKNOWN)
INSTRUMENT_BUSY = ReasonKind("busy", "the instrument used {share:.0%} of a core", Blame.INSTRUMENT)
SENDS_LATE = ReasonKind(
    "late", "sends were late (P99 {late_us:,.0f} us) and account for the break", Blame.INSTRUMENT
)
HOST_HELD = ReasonKind(
    "held", "the host held sends up (P99 {late_us:,.0f} us) and account for the break", Blame.HOST
)
STOLEN = ReasonKind("stolen", "the hypervisor took {share:.0%} of the host's CPU", Blame.HOST)
OTHERS = ReasonKind("others", "others used {share:.0%} of the host's CPU", Blame.HOST)

_KINDS = tuple(each for each in list(globals().values()) if isinstance(each, ReasonKind))
_OTHER = ReasonKind("", "", Blame.UNKNOWN)


def write_reasons(reasons: Iterable[Reason]) -> str:
    return "; ".join(reason.words for reason in reasons)


def read_reasons(text: str) -> tuple[Reason, ...]:
    return tuple(
        Reason(next((kind for kind in _KINDS if kind.pattern.fullmatch(words)), _OTHER), words)
        for words in (text.split("; ") if text else ())
    )
