"""Linkerd's identity service: who may have which certificate, and when a proxy's renewal is answered.

A linkerd2-proxy renews by itself, after 70 % of its certificate's life, but not before 10 s and not after
24 h (`linkerd/proxy/identity-client/src/certify.rs`); nothing can tell it to renew sooner. So here every
proxy is started with a short longest wait (`sidecar.ASKS_AGAIN`) and asks again at once, and its call is
*held*: it is answered when a proxy with Linkerd's own settings would have asked (`refresh_in_s`), or when a
rotation is due. For the proxy it is the same call with the same answer, on its way for longer.

Rules of this file:
- The first call of a proxy's life is answered at once; each start has a token of its own (`sidecar`).
- What was answered is in the directory, so that a controller that is started again holds on.
- A refusal is like an answer: the next one is due when a proxy with Linkerd's settings would try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from meshwise.mesh.files import private_directory, write_private
from meshwise.mesh.linkerd import authority
from meshwise.mesh.linkerd.authority import CertificateRefused, Leaf
from meshwise.mesh.linkerd.failing import ServiceFaults
from meshwise.mesh.linkerd.names import IDENTITIES_FILE, ControlService
from meshwise.mesh.linkerd.proto import identity_pb2

MIN_REFRESH_S, MAX_REFRESH_S = 10.0, 86400.0
"""linkerd2-proxy's own (`linkerd/app/src/env.rs`), which Helm leaves as they are."""
ISSUED_DIRECTORY = "issued"


def refresh_in_s(left_s: float) -> float:
    """How long a proxy waits that has so much of its certificate's life left."""
    return MIN_REFRESH_S if left_s <= 0 else min(max(0.7 * left_s, MIN_REFRESH_S), MAX_REFRESH_S)


@dataclass(frozen=True)
class TokenOwner:
    """Whose token it is. `start`: of the proxy's process; empty where it cannot be told."""

    pod: str
    identity: str
    start: str


@dataclass(frozen=True)
class LastAnswer:
    """The last answer that one pod's proxy was given, in seconds of the wall clock."""

    start: str
    at_s: float
    valid_until_s: float
    serial: str
    """In hex, of the certificate that the proxy was given."""

    @property
    def due_s(self) -> float:
        """When a proxy with Linkerd's own settings asks again."""
        return self.at_s + refresh_in_s(self.valid_until_s - self.at_s)


def last_answered(directory: Path, pod: str) -> LastAnswer | None:
    """What the controller of this directory has answered this pod's proxy last."""
    try:
        return LastAnswer(**json.loads(_file(directory / ISSUED_DIRECTORY, pod).read_text()))
    except FileNotFoundError:
        return None


def _file(directory: Path, pod: str) -> Path:
    return directory / f"{pod}.json"


@dataclass(frozen=True)
class Renewed:
    """One proxy's further certificate, its serial in hex, and when its answer left (CLOCK_MONOTONIC)."""

    pod: str
    serial: str
    answered_ns: int
    valid_until_s: float


@dataclass
class HeldRenewal:
    """A call that waits for its answer. `over`: it was answered with `leaf`, or has ended without."""

    owner: TokenOwner
    request: bytes
    ordered: asyncio.Future[Leaf]
    over: asyncio.Event = field(default_factory=asyncio.Event)
    leaf: Leaf | None = None
    answered_ns: int = 0

    def order(self, leaf: Leaf) -> None:
        if not self.ordered.done():  # it has become due, or its proxy has gone
            self.ordered.set_result(leaf)

    def refuse(self, refusal: CertificateRefused) -> None:
        if not self.ordered.done():
            self.ordered.set_exception(refusal)

    def renewed(self) -> Renewed:
        assert self.leaf is not None, "asked of one that was answered"
        until_s = self.leaf.valid_until.timestamp()
        return Renewed(self.owner.pod, f"{self.leaf.serial:x}", self.answered_ns, until_s)


class CertificateIssuer:
    """Checks a request and signs it. `identities.json` maps the digest of a token to its owner."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._issuer = authority.load_issuer(directory)
        settings = json.loads((directory / IDENTITIES_FILE).read_text())
        self._owners: dict[str, TokenOwner] = {
            digest: TokenOwner(pod, identity, "") for digest, (pod, identity) in settings["tokens"].items()
        }
        self._life = _life(directory)
        self._allowance = dt.timedelta(seconds=settings["allowance_s"])
        self.skew = dt.timedelta()
        """How far its clock is ahead."""

    def take_up_issuer(self) -> None:
        """Another one is in the directory, as when Linkerd's secret has changed; or leaves live for another
        time."""
        self._issuer, self._life = authority.load_issuer(self._directory), _life(self._directory)

    def owner(self, request: Any) -> TokenOwner:
        """Raises CertificateRefused."""
        token, _, start = request.token.partition(b".")
        if not token:
            raise CertificateRefused("INVALID_ARGUMENT", "the token is missing")
        owner = self._owners.get(authority.token_digest(token))
        if owner is None:
            raise CertificateRefused("FAILED_PRECONDITION", "the token is not known")
        if owner.identity != request.identity:
            raise CertificateRefused("FAILED_PRECONDITION", f"the token is not that of {request.identity}")
        return TokenOwner(owner.pod, owner.identity, start.decode("latin-1"))

    def sign(self, owner: TokenOwner, request: bytes) -> Leaf:
        """Raises CertificateRefused."""
        now = dt.datetime.now(dt.UTC) + self.skew
        return self._issuer.certify(owner.identity, request, now, self._life, self._allowance)


def _life(directory: Path) -> dt.timedelta:
    """Of leaves (Helm value `identity.issuer.issuanceLifetime`)."""
    return dt.timedelta(seconds=json.loads((directory / IDENTITIES_FILE).read_text())["leaf_life_s"])


def _has_until_s(owner: TokenOwner, leaf: Leaf, last: LastAnswer | None) -> float:
    """When the certificate ends that its proxy has after this answer: one that is not valid yet is refused,
    and it goes on with the former; who has started just now has none, and asks again soon."""
    if leaf.valid_from.timestamp() <= time.time():
        return leaf.valid_until.timestamp()
    return last.valid_until_s if last is not None and last.start == owner.start else 0.0


class IdentityService:
    """What answers Certify."""

    def __init__(self, directory: Path, failing: ServiceFaults) -> None:
        self.issuer = CertificateIssuer(directory)
        self._failing = failing
        self._directory = private_directory(directory / ISSUED_DIRECTORY)
        self._answered = {
            path.stem: LastAnswer(**json.loads(path.read_text())) for path in self._directory.glob("*.json")
        }
        self._held: dict[str, HeldRenewal] = {}
        self._ended: set[tuple[str, str]] = set()
        """Pods with starts of processes that have a successor; what they still ask comes late."""
        self._came = asyncio.Condition()

    async def certify(self, request: Any) -> Any:
        """`identity_pb2.CertifyResponse`, when it is due. Raises CertificateRefused."""
        owner, csr = self.issuer.owner(request), request.certificate_signing_request
        last = self._answered.get(owner.pod)
        held = HeldRenewal(owner, csr, asyncio.get_running_loop().create_future())
        try:
            leaf = await self._hold(held, last) or await self._when_able(held)
            if (owner.pod, owner.start) not in self._ended:
                self._note(owner, _has_until_s(owner, leaf, last), f"{leaf.serial:x}")
            held.leaf, held.answered_ns = leaf, time.monotonic_ns()
        except CertificateRefused:
            if last is not None and last.start == owner.start:
                self._note(owner, last.valid_until_s, last.serial)
            raise
        finally:
            held.over.set()
        response = identity_pb2.CertifyResponse(
            leaf_certificate=leaf.certificate, intermediate_certificates=leaf.chain
        )
        response.valid_until.FromDatetime(leaf.valid_until)
        return response

    async def renew(self, pods: Sequence[str], within_s: float) -> tuple[Sequence[Renewed], str]:
        """Answer these proxies' held calls, all at once, when the last of them is there or the time is up:
        who was answered, and why the others were not."""
        with contextlib.suppress(TimeoutError):  # who is there is answered; the others are told
            async with asyncio.timeout(within_s), self._came:
                await self._came.wait_for(lambda: all(pod in self._held for pod in pods))
        held = [self._held[pod] for pod in pods if pod in self._held]
        why = f"it did not ask for a certificate within {within_s:g} s"
        try:
            await self._failing.pass_by(ControlService.IDENTITY, CertificateRefused)
            signed = [(each, self.issuer.sign(each.owner, each.request)) for each in held]
        except CertificateRefused as refusal:
            why = str(refusal)
            for each in held:
                each.refuse(refusal)
        else:
            for each, leaf in signed:
                each.order(leaf)
        for each in held:
            await each.over.wait()
        return [each.renewed() for each in held if each.leaf is not None], why

    async def _hold(self, held: HeldRenewal, last: LastAnswer | None) -> Leaf | None:
        """The certificate of a rotation that came before the call was due; None when it is due."""
        owner = held.owner
        if not owner.start or last is None or last.start != owner.start:
            if (owner.pod, owner.start) not in self._ended:
                self._held.pop(
                    owner.pod, None
                )  # of the process before, should its end not have come here yet
                if last is not None:
                    self._ended.add((owner.pod, last.start))
            return None
        try:
            async with self._came:
                self._held[owner.pod] = held
                self._came.notify_all()
            async with asyncio.timeout(max(last.due_s - time.time(), 0.0)):
                return await held.ordered
        except TimeoutError:
            return None
        finally:
            if self._held.get(owner.pod) is held:
                del self._held[owner.pod]

    async def _when_able(self, held: HeldRenewal) -> Leaf:
        await self._failing.pass_by(ControlService.IDENTITY, CertificateRefused)
        return self.issuer.sign(held.owner, held.request)

    def _note(self, owner: TokenOwner, valid_until_s: float, serial: str) -> None:
        """Before the answer leaves: a controller that is killed after it must know it."""
        answered = LastAnswer(owner.start, time.time(), valid_until_s, serial)
        self._answered[owner.pod] = answered
        write_private(_file(self._directory, owner.pod), json.dumps(asdict(answered)))
