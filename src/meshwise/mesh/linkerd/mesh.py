"""Linkerd as a `LocalMesh`: real linkerd2-proxy sidecars on this machine, with a small control plane.

snapshot (`model`) -> file -> controller -> relay -> proxy
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.mesh import dump
from meshwise.mesh.changes import NOT_DONE, Change, Disturbance, InForce, PolicyPush, RestartProxy, Taken
from meshwise.mesh.files import hand_over, private_directory, write_private
from meshwise.mesh.linkerd import (
    authority,
    binary,
    command,
    fidelity,
    outsiders,
    proof,
    sent,
    sidecar,
)
from meshwise.mesh.linkerd.destinations import Transport
from meshwise.mesh.linkerd.model import LinkerdModel
from meshwise.mesh.linkerd.names import (
    ADMIN_PORT,
    API_SOCKETS,
    CONTROLLER_DIRECTORY,
    IDENTITIES_FILE,
    INBOUND_PORT,
    INBOUND_SKIP_PORTS,
    OUTBOUND_PORT,
    OUTBOUND_SKIP_PORTS,
    PORTS,
    PROXY_UID,
    SNAPSHOT_FILE,
    identity_of,
)
from meshwise.mesh.linkerd.possible import FAILING, why_not
from meshwise.mesh.linkerd.rotating import LinkerdRotation
from meshwise.mesh.linkerd.sampler import ProxySampler
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import Capture, Delivered, Drain, Fidelity, Placement, ProcessPlan, Ready
from meshwise.study.demands import effective_posture
from meshwise.study.model import Cell, MtlsMode
from meshwise.study.timeline import Act, Rotate, Skew
from meshwise.telemetry.seam import Sampler

ANSWER_S = 0.5
"""A control plane that answers no question in this time stands still."""
_RELAY = Path(__file__).with_name("relay.py")
_RESOLVER = Path("/etc/resolv.conf")
TLS_LIBRARY = "rustls on aws-lc-rs"
_STATE = {"metrics.txt": "/metrics"}
_INHERITED = ("PATH", "PYTHONPATH")
"""What the controller, a Python program, needs of the user's environment."""


class LinkerdMesh:
    """See `meshwise.mesh.seam.LocalMesh`. Holds its authority, proxies' keys and a count of its pushes."""

    def __init__(self, transport: Transport | None = None) -> None:
        self.model = LinkerdModel(transport or Transport())
        self._authorities: dict[str, authority.LinkerdAuthority] = {}
        self._keys: dict[tuple[str, str], ec.EllipticCurvePrivateKey] = {}
        self._pushes = itertools.count(1)
        self._workers: dict[str, int] = {}
        self._settings: dict[str, dict[str, Any]] = {}
        """By process set: what its authority was last told."""
        self._in_force: dict[str, InForce] = {}
        """By process set: what the changes of its trial have made."""
        self._to_renew: set[str] = set()
        """Process sets whose certificates a clock that was wrong may have dated."""

    def processes(self, placement: Placement, workers: int) -> Sequence[ProcessPlan]:
        proxy = str(binary.proxy_path())
        self._workers[placement.process_set] = workers
        controller = placement.directory / CONTROLLER_DIRECTORY
        anchors = self._authority(placement).anchor_pem
        words = [str(placement.patience.ready_s)]
        for service, port in PORTS.items():
            words += [str(port), str(controller / API_SOCKETS[service])]
        plans = [
            ProcessPlan(
                pod=placement.workloads[0].name,
                role="controller",
                argv=(sys.executable, "-m", "meshwise.mesh.linkerd.controller", str(controller)),
                environment={name: os.environ[name] for name in _INHERITED if name in os.environ},
            )
        ]
        for placed in placement.workloads:
            relay = (sys.executable, "-I", "-S", str(_RELAY), *words)
            plans.append(ProcessPlan(pod=placed.name, role="relay", argv=relay))
            plans.append(
                ProcessPlan(
                    pod=placed.name,
                    role="proxy",
                    argv=sidecar.command(proxy, placement.counted),
                    environment=sidecar.environment(placed, placement, workers, anchors),
                    uid=PROXY_UID,
                    directory=placement.directory / placed.name,
                    ready=Ready(ADMIN_PORT, "/ready"),
                    drain=Drain(),  # which SIGTERM makes it do
                )
            )
        return plans

    def capture(self, workload: str) -> Capture | None:
        return Capture(
            inbound_port=INBOUND_PORT,
            outbound_port=OUTBOUND_PORT,
            proxy_uid=PROXY_UID,
            inbound_exempt_ports=INBOUND_SKIP_PORTS,
            outbound_exempt_ports=OUTBOUND_SKIP_PORTS,
        )

    def prepare(self, placement: Placement, cell: Cell) -> None:
        if not _RESOLVER.is_file():
            raise messages.NO_RESOLVER.error(path=_RESOLVER)
        hand_over(placement.directory, PROXY_UID)
        tokens, own = {}, self._of_depth(placement, cell)
        for placed in placement.workloads:
            key = self._keys.setdefault((placement.process_set, placed.name), authority.make_key())
            token = secrets.token_urlsafe(32)
            sidecar.lay_out(placed, placement, key, token, own.anchor_pem)
            identity = identity_of(placed.workload, placement)
            tokens[authority.token_digest(token.encode())] = (placed.name, identity)
        controller = private_directory(placement.directory / CONTROLLER_DIRECTORY)
        authority.store_issuer(own.issuer, controller)
        settings = {
            "tokens": tokens,
            "leaf_life_s": cell.certificate_life_s,
            "allowance_s": authority.CLOCK_SKEW.total_seconds(),
        }
        self._settings[placement.process_set] = settings
        write_private(controller / IDENTITIES_FILE, json.dumps(settings))
        outsiders.issue(placement, own)
        self._write_snapshot(placement, cell)

    def reset(self, placement: Placement, cell: Cell, reach: Reach) -> None:
        """Certificates of an issuer or anchor that a trial brought stay: every proxy has them."""
        self._in_force.pop(placement.process_set, None)
        self._certify(placement, cell)
        made = self._hand_out(placement, cell)
        try:
            proof.settle(placement, cell, reach, made)
        except MeshwiseError as error:
            if error.code == messages.CONFIG_SLOW.code and binary.untried():
                raise _unknown_api(error.what) from error
            raise

    def push(self, placement: Placement, cell: Cell, reach: Reach) -> None:
        """Sent to every stream whose answer differs. A proxy acknowledges nothing, so taken up is what was
        sent; the first request under the new rule comes a moment later."""
        self._hand_out(placement, cell)

    def cannot(self, cell: Cell, act: Act) -> str | None:
        return why_not(cell, act)

    def foresee(self, placement: Placement, cell: Cell, changes: Sequence[Change]) -> None:
        """A snapshot is made in a few milliseconds."""

    def carry_out(
        self, placement: Placement, cell: Cell, act: Change, reach: Reach, restart: RestartProxy
    ) -> Sequence[Taken]:
        """A proxy acknowledges no policy; `sent` says what is known of one. While the control plane answers
        nothing, nothing is taken up; what was pushed is handed out when it is back."""
        own = placement.process_set
        names = [placed.name for placed in placement.of(cell.topology)]
        silent = _silence(placement)
        if isinstance(act, Rotate):
            if silent:
                return [Taken(name, None, {NOT_DONE: silent}) for name in names]
            rotation = LinkerdRotation(placement, cell, reach, partial(_tell, placement), restart)
            taken, self._authorities[own] = rotation.carry_out(act, self._authority(placement))
            return taken
        self._in_force[own] = self._in_force.get(own, InForce()).after(act)
        self._write_snapshot(placement, self._in_force[own].cell(cell), self._in_force[own].pushed)
        if silent:
            with suppress(MeshwiseError):  # one that stands still does it when it goes on
                _tell(placement, "reload", control_s=ANSWER_S)
            return [Taken(name, None, {NOT_DONE: silent}) for name in names]
        told = _tell(placement, "reload", pods=names, within_s=placement.patience.settle_s)
        return [sent.taken(told, name) for name in names]

    @contextmanager
    def failing(self, placement: Placement, act: Disturbance) -> Iterator[None]:
        if isinstance(act, Skew):
            # What was signed meanwhile may have ended, or not begun yet, when the next trial begins.
            self._to_renew.add(placement.process_set)
            _tell(placement, "skew", by_s=act.by_ns / 1e9)
            try:
                yield
            finally:
                _tell(placement, "skew", by_s=0.0)
            return
        services = [str(each) for each in FAILING[act.what]]
        _tell(placement, "fail", services=services, how=str(act.how))
        try:
            yield
        finally:
            _tell(placement, "mend", services=services)

    def guard(self, guarded: bool) -> None:
        self.model = replace(self.model, guarded=guarded)

    def delivered(self, placement: Placement) -> Delivered:
        status = _tell(placement, "status")
        return Delivered(self._workers[placement.process_set], status["fingerprint"], status["behind"])

    def state(self, placement: Placement, cell: Cell, reach: Reach) -> Mapping[str, str]:
        used = [placed.name for placed in placement.of(cell.topology)]
        return dump.ask_all(reach, ADMIN_PORT, used, _STATE)

    def samplers(self, placement: Placement, reach: Reach) -> Sequence[Sampler]:
        return [ProxySampler(placement, placed.name, reach) for placed in placement.workloads]

    def describe(self) -> Mapping[str, str]:
        found = binary.facts(binary.proxy_path())
        return {
            "proxy": "linkerd2-proxy",
            "worker_model": "tokio worker threads (CORES), one more for administration",
            "tls_library": TLS_LIBRARY,
            **found,
        }

    def fidelity(self, *, privileged: bool) -> Sequence[Fidelity]:
        return fidelity.differences(self.model.transport, binary.untried(), privileged=privileged)

    # --- how a posture gets there ------------------------------------------------------------------

    def _authority(self, placement: Placement) -> authority.LinkerdAuthority:
        name = placement.process_set
        if name not in self._authorities:
            made = dt.datetime.now(dt.UTC) - authority.AGE
            self._authorities[name] = authority.make_authority(placement.trust_domain, made)
        return self._authorities[name]

    def _of_depth(self, placement: Placement, cell: Cell) -> authority.LinkerdAuthority:
        """With an issuer whose chain is as deep as the cell asks for."""
        own = self._authority(placement)
        if own.issuer.depth != cell.chain_depth:
            own = own.with_issuer(placement.trust_domain, depth=cell.chain_depth)
            self._authorities[placement.process_set] = own
        return own

    def _certify(self, placement: Placement, cell: Cell) -> None:
        """Proxies have certificates as the cell asks for; a new one each where they have others, or what they
        have may end within the trial. In plaintext nothing asks. Raises MW405 where a proxy does not ask for
        its new one: one whose certificate is near its end asks every 10 s."""
        own, settings = placement.process_set, self._settings[placement.process_set]
        former = self._authority(placement).issuer.depth, settings["leaf_life_s"]
        plain = all(
            effective_posture(cell, each).mtls is MtlsMode.DISABLE for each in cell.topology.workloads
        )
        short = cell.certificate_life_s < authority.LEAF_LIFE.total_seconds()
        as_asked = former == (cell.chain_depth, cell.certificate_life_s) and not short
        if (plain or as_asked) and own not in self._to_renew:
            return
        settings["leaf_life_s"] = cell.certificate_life_s
        controller = placement.directory / CONTROLLER_DIRECTORY
        authority.store_issuer(self._of_depth(placement, cell).issuer, controller)
        write_private(controller / IDENTITIES_FILE, json.dumps(settings))
        _tell(placement, "issuer")
        names = [placed.name for placed in placement.workloads]
        within_s = 2 * placement.patience.settle_s
        told = _tell(placement, "renew", pods=names, within_s=within_s)
        if missing := sorted(set(names) - {each["pod"] for each in told["renewed"]}):
            raise messages.CONFIG_SLOW.error(
                pod=missing[0], cell=cell.name, timeout=within_s, waiting=f"a new certificate: {told['why']}"
            )
        self._to_renew.discard(own)
        outsiders.issue(placement, self._authorities[own])

    def _hand_out(self, placement: Placement, cell: Cell) -> Any:
        """The cell's snapshot, sent on every stream. Raises MW422 for a proxy that calls the unknown."""
        made = self._write_snapshot(placement, cell)
        status = _tell(placement, "reload")
        if status["unknown_calls"]:
            raise _unknown_api(f"it called {', '.join(status['unknown_calls'])}")
        return made

    def _write_snapshot(self, placement: Placement, cell: Cell, pushed: PolicyPush | None = None) -> Any:
        made = self.model.snapshot(placement, cell, next(self._pushes), pushed)
        path = placement.directory / CONTROLLER_DIRECTORY / SNAPSHOT_FILE
        write_private(path, made.SerializeToString())
        return made


def _unknown_api(reason: str) -> MeshwiseError:
    facts = binary.facts(binary.proxy_path())
    return messages.UNKNOWN_PROXY_API.error(
        path=facts["path"], version=facts["version"], reason=reason, pinned=binary.pinned()
    )


def _tell(placement: Placement, word: str, control_s: float | None = None, **more: object) -> dict[str, Any]:
    """`control_s`: how long an answer may take at most; None: as long as all that one waits for."""
    directory = placement.directory / CONTROLLER_DIRECTORY
    within_s = control_s or placement.patience.control_s
    return command.tell(directory, word, placement.process_set, within_s, **more)


def _silence(placement: Placement) -> str:
    """Why the control plane cannot be asked for something now; empty if it can."""
    try:
        _tell(placement, "status", control_s=ANSWER_S * placement.patience.slowness)
    except MeshwiseError as error:
        if error.code != messages.CONTROLLER_SILENT.code:
            raise
        return error.what
    return ""
