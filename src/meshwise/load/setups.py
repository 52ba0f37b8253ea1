"""The record of how connections were set up: small however many there are, for another process to read."""

from __future__ import annotations

import errno
from array import array
from dataclasses import dataclass, field
from typing import Any, cast

from meshwise.load.wire.seam import ErrorKind

_EXHAUSTED = frozenset(
    {errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
)
MOST_REASONS = 16
OTHER_REASONS = "other reasons"
_REASON_CHARACTERS = 200


class SetupError(Exception):
    """The connection could not be made; `kind` is connect, tls, or what its protocol did not bear."""

    def __init__(self, kind: ErrorKind, what: str, number: int | None = None) -> None:
        super().__init__(what)
        self.kind = kind
        self.exhausted = number in _EXHAUSTED
        """This machine refused: no port, descriptor or memory was left."""


@dataclass(frozen=True)
class Setup:
    """How long one set-up took."""

    connect_ns: int
    tls_ns: int | None
    alpn: str | None
    tls_version: str | None
    resumed: bool


@dataclass
class SetupLog:
    """All set-ups of one process."""

    connect_ns: array[int] = field(default_factory=lambda: array("q"))
    full_tls_ns: array[int] = field(default_factory=lambda: array("q"))
    resumed_tls_ns: array[int] = field(default_factory=lambda: array("q"))
    failures: dict[str, int] = field(default_factory=dict)
    exhausted: int = 0
    """Failures that are this machine's: no port, descriptor or memory was left."""
    tls: str = ""
    """Version and ALPN of the first connection."""
    replaced: int = 0
    """Connections that were ended because the pattern says so."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Why connections and requests failed, in words, with how often; at most MOST_REASONS of them."""

    addresses: dict[str, int] = field(default_factory=dict)
    """Address -> connections made to it."""
    attempts: array[int] = field(default_factory=lambda: array("q"))
    """Of a name with several addresses, each attempt: when it began, its slot, the number of the address."""

    def note_attempt(self, began_ns: int, slot: int, number: int) -> None:
        self.attempts.extend((began_ns, slot, number))

    def note(self, setup: Setup, address: str) -> None:
        self.addresses[address] = self.addresses.get(address, 0) + 1
        self.connect_ns.append(setup.connect_ns)
        if setup.tls_ns is not None:
            (self.resumed_tls_ns if setup.resumed else self.full_tls_ns).append(setup.tls_ns)
            self.tls = self.tls or f"{setup.tls_version} {setup.alpn or 'no ALPN'}"

    def note_failure(self, error: SetupError) -> None:
        label = error.kind.label
        self.failures[label] = self.failures.get(label, 0) + 1
        self.exhausted += error.exhausted
        self.note_reason(str(error))

    def note_reason(self, reason: str) -> None:
        """For people; the kinds of errors are counted in the records."""
        reason = reason[:_REASON_CHARACTERS]
        if reason not in self.reasons and len(self.reasons) >= MOST_REASONS:
            reason = OTHER_REASONS
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def to_values(self) -> dict[str, object]:
        """For JSON."""
        return {
            "connect_ns": self.connect_ns.tolist(),
            "full_tls_ns": self.full_tls_ns.tolist(),
            "resumed_tls_ns": self.resumed_tls_ns.tolist(),
            "failures": self.failures,
            "exhausted": self.exhausted,
            "tls": self.tls,
            "replaced": self.replaced,
            "reasons": self.reasons,
            "addresses": self.addresses,
            "attempts": self.attempts.tolist(),
        }

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> SetupLog:
        """The inverse of `to_values`."""
        names = ("connect_ns", "full_tls_ns", "resumed_tls_ns", "attempts")
        columns: dict[str, Any] = {name: array("q", cast(list[int], values.pop(name))) for name in names}
        return cls(**columns, **values)
