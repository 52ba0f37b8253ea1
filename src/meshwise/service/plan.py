"""The header `x-plan`: what a node does for one request.

    x-plan: bytes=1024;hops=2;fan=0;work_us=0

`work_us` of work first; then, with hops left, one call to the next node; without hops left, calls to the
first `fan` leaves at once; then an answer of `bytes`. Without the header: an empty answer. The plan
travels, so that a chain and a fan-out are properties of the request and not of the processes.

    x-plan: bytes=1024;script=tree3

The script of that name in the spec of each node says what the node does (sequences, trees, service graphs);
`bytes` is for those nodes of it that have no size of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import unquote

HEADER = "x-plan"
MAX_BYTES = 16 << 20
MAX_HOPS = 64
MAX_FAN = 256
MAX_WORK_US = 1_000_000
MAX_MESSAGES = 100_000
_SCRIPT = re.compile(r"[a-z][a-z0-9-]{0,99}")


class PlanError(ValueError):
    """The text is not a plan; the message says why, for the person who sent it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Parsed `x-plan`; every field is within the limits of this file."""

    bytes: int = 0
    hops: int = 0
    fan: int = 0
    work_us: int = 0
    script: str = ""
    """The name of what each node is told by its spec; then `hops` and `fan` say nothing."""
    messages: int = 1
    """Of a gRPC stream that sends more than one down."""

    def __str__(self) -> str:
        if self.script:
            return f"bytes={self.bytes};script={self.script}"
        more = f";messages={self.messages}" if self.messages != 1 else ""
        return f"bytes={self.bytes};hops={self.hops};fan={self.fan};work_us={self.work_us}{more}"

    def for_next(self) -> Plan:
        """What the next node of a chain is asked."""
        return replace(self, hops=self.hops - 1)

    def for_leaf(self) -> Plan:
        """What a leaf is asked: the same bytes and work, and no further call."""
        return replace(self, hops=0, fan=0)


_LIMITS = {
    "bytes": MAX_BYTES, "hops": MAX_HOPS, "fan": MAX_FAN, "work_us": MAX_WORK_US, "messages": MAX_MESSAGES,
}  # fmt: skip


def parse(text: str) -> Plan:
    """Raises PlanError."""
    values: dict[str, int] = {}
    script = ""
    for part in unquote(text).split(";"):
        name, _, number = part.strip().partition("=")
        if not name and not number:
            continue
        if name == "script":
            if script or not _SCRIPT.fullmatch(number):
                raise PlanError("x-plan script is one name")
            script = number
            continue
        limit = _LIMITS.get(name)
        if limit is None:
            raise PlanError(f"x-plan has no field {name[:40]!r}")
        if not (number.isascii() and number.isdigit() and len(number) <= 9 and int(number) <= limit):
            raise PlanError(f"x-plan {name} must be a whole number from 0 to {limit}")
        if name in values:
            raise PlanError(f"x-plan names {name} twice")
        values[name] = int(number)
    if script and values.keys() - {"bytes"}:
        raise PlanError("x-plan has a script, beside which only bytes mean anything")
    return Plan(**values, script=script)
