"""The seam `Reach`: calls made in a pod, and questions to its proxy.

No socket is in its signature: on one machine sockets are made inside a pod's network namespace
(`testbed.local.reach`); on a cluster an agent in the pod can make the same calls.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from meshwise.mesh.hello import Choice
from meshwise.mesh.overheard import Overheard
from meshwise.mesh.probe import Ask, ProbeAnswer, TlsAs
from meshwise.mesh.protection.talk import RawLine


class Reach(Protocol):
    """Of one environment; `pod` is a workload's name or OUTSIDER. Conformance suite:
    `tests/support/reach_conformance.py`. May be used by several threads, each for pods of its own."""

    def call(self, pod: str, address: str, port: int, request: Ask, tls: TlsAs | None = None) -> ProbeAnswer:
        """One request from the pod, on a connection of its own. Nothing that the peer does raises."""

    def line(self, pod: str, address: str, port: int, tls: TlsAs | None = None) -> RawLine:
        """A connection from the pod, over which bytes are sent as they are; the caller closes it. Nothing
        that the peer does raises: of a connection that is refused, the first talk says so."""

    def choice(self, pod: str, address: str, port: int, server_name: str) -> Choice | str:
        """What a TLS server chooses of a proxy's ClientHello; why there is no choice, in words."""

    def listens(self, pod: str, port: int) -> bool:
        """Whether something accepts connections to this port of the pod's loopback."""

    def get(self, pod: str, port: int, path: str) -> bytes:
        """The body of the 200 answer of the pod's loopback `port`. Raises MW406 when there is none."""

    def overhear(self, pod: str) -> AbstractContextManager[Callable[[], Overheard]]:
        """Listens on the pod's link, as one does who sits on the wire between pods; what is called gives all
        that was sent and received there since the block began. The pod's own loopback is not on it."""
