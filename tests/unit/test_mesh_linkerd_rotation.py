"""Renewals that are held and answered when a rotation is due, and services of the control plane that fail."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from tests.support import linkerd_samples as samples
from tests.support.linkerd_client import ProxyClient, following, lay_out, now, pod_of, refusal, serving, tell

from meshwise.mesh.changes import NOT_DONE, PolicyPush, Taken
from meshwise.mesh.files import write_private
from meshwise.mesh.linkerd import authority, failing, sent
from meshwise.mesh.linkerd.controller import read_index
from meshwise.mesh.linkerd.issuing import last_answered, refresh_in_s
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.linkerd.model import LinkerdModel
from meshwise.mesh.linkerd.names import CONTROLLER_DIRECTORY, SNAPSHOT_FILE, identity_of, workload_token
from meshwise.mesh.linkerd.possible import why_not
from meshwise.study.model import LADDER, Authorization, Cell, KeyType, MtlsMode, Posture, Protocol
from meshwise.study.timeline import (
    ChangePosture,
    Fail,
    Failing,
    PushPolicies,
    Restart,
    Restarted,
    Rotate,
    Rotated,
    Skew,
)
from meshwise.testbed.fake_reach import FakeReach

PLACEMENT = samples.placement()
NAMES = [identity_of(PLACEMENT[f"node-{number}"].workload, PLACEMENT) for number in (1, 2)]
KEYS = {name: authority.make_key() for name in NAMES}
CSRS = {name: authority.request_der(name, key) for name, key in KEYS.items()}
TOKENS = {name: f"token-{number}".encode() for number, name in enumerate(NAMES)}
PODS = [pod_of(name) for name in NAMES]
OWN = authority.make_authority()
WORKLOAD = workload_token(PLACEMENT["node-1"])
STRICT = samples.made(replace(samples.CELL, posture=LADDER[2]), version=2)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short, because the path of a Unix socket has at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="l5d-"))
    lay_out(path, samples.made(samples.CELL), TOKENS, OWN)
    yield path
    shutil.rmtree(path)


def play(directory: Path, scene: Callable[[ProxyClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with serving(directory) as client:
            return await scene(client)

    return asyncio.run(run())


class Proxy:
    """Certifies as linkerd2-proxy does: with one token for its life, which its start has made."""

    def __init__(self, client: ProxyClient, name: str, start: str) -> None:
        self._client, self._name = client, name
        self._token = TOKENS[name] + b"." + start.encode()

    async def certify(self) -> x509.Certificate:
        answer = await self._client.certify(self._name, self._token, CSRS[self._name])
        return x509.load_der_x509_certificate(answer.leaf_certificate)

    async def started(self) -> asyncio.Task[x509.Certificate]:
        """Its first certificate is here; the call for the next one is under way."""
        await self.certify()
        return asyncio.create_task(self.certify())


@pytest.mark.parametrize(
    ("left_s", "after_s"),
    [(86400, 60480), (100, 70), (20, 14), (14, 10), (5, 10), (0, 10), (-3, 10), (1e6, 86400)],
)
def test_a_proxy_renews_at_seven_tenths_between_its_limits(left_s: float, after_s: float) -> None:
    assert refresh_in_s(left_s) == pytest.approx(after_s)


def test_a_renewal_is_held_until_it_is_told_and_all_get_it_at_once(directory: Path) -> None:
    async def scene(client: ProxyClient) -> Any:
        held = [await Proxy(client, name, "1-1").started() for name in NAMES]
        done, _ = await asyncio.wait(held, timeout=0.2)
        assert not done, "a day's certificate is not due"
        told = await tell(directory, "renew", pods=PODS, within_s=5)
        return told, [await each for each in held]

    told, leaves = play(directory, scene)
    assert [each["pod"] for each in told["renewed"]] == PODS
    assert [each["serial"] for each in told["renewed"]] == [f"{leaf.serial_number:x}" for leaf in leaves]
    for each in told["renewed"]:
        answered = last_answered(directory, each["pod"])
        assert answered is not None
        assert answered.serial == each["serial"], "what a controller that starts again will know"
    first, last = (each["answered_ns"] for each in told["renewed"])
    assert 0 < first <= last < time.monotonic_ns()
    for leaf in leaves:
        leaf.verify_directly_issued_by(OWN.issuer.certificate)


def test_a_proxy_that_starts_again_is_answered_at_once_and_its_former_call_is_forgotten(
    directory: Path,
) -> None:
    async def scene(client: ProxyClient) -> Any:
        former = await Proxy(client, NAMES[0], "1-1").started()
        again = await Proxy(client, NAMES[0], "2-5").started()
        former.cancel()
        told = await tell(directory, "renew", pods=PODS[:1], within_s=5)
        return told, await again

    told, leaf = play(directory, scene)
    assert told["renewed"][0]["serial"] == f"{leaf.serial_number:x}"


def test_a_call_of_a_process_that_has_a_successor_changes_nothing(directory: Path) -> None:
    """It was on its way when the process ended."""

    async def scene(client: ProxyClient) -> Any:
        former = Proxy(client, NAMES[0], "1-1")
        await former.certify()
        again = Proxy(client, NAMES[0], "2-5")
        await again.certify()
        await former.certify()
        renewal = asyncio.create_task(again.certify())
        told = await tell(directory, "renew", pods=PODS[:1], within_s=5)
        return told, await renewal

    told, leaf = play(directory, scene)
    assert [each["serial"] for each in told["renewed"]] == [f"{leaf.serial_number:x}"]


def test_who_does_not_ask_is_named_and_the_others_are_renewed(directory: Path) -> None:
    async def scene(client: ProxyClient) -> Any:
        held = await Proxy(client, NAMES[0], "1-1").started()
        return await tell(directory, "renew", pods=PODS, within_s=0.2), await held

    told, _ = play(directory, scene)
    assert [each["pod"] for each in told["renewed"]] == PODS[:1]
    assert told["why"] == "it did not ask for a certificate within 0.2 s"


def test_a_controller_that_starts_again_holds_on(directory: Path) -> None:
    """Its predecessor's answers are in the directory: a renewal is not due because it was started."""

    async def first(client: ProxyClient) -> x509.Certificate:
        return await Proxy(client, NAMES[0], "1-1").certify()

    async def second(client: ProxyClient) -> Any:
        held = asyncio.create_task(Proxy(client, NAMES[0], "1-1").certify())
        done, _ = await asyncio.wait([held], timeout=0.2)
        assert not done
        return (await tell(directory, "renew", pods=PODS[:1], within_s=5))["renewed"][0], await held

    former = play(directory, first)
    renewed, leaf = play(directory, second)
    assert renewed["serial"] == f"{leaf.serial_number:x}" != f"{former.serial_number:x}"


def test_a_renewal_that_is_due_is_answered_unasked(directory: Path) -> None:
    """The controller remembers a certificate that was nearly at its end."""

    async def first(client: ProxyClient) -> None:
        await Proxy(client, NAMES[0], "1-1").certify()

    async def second(client: ProxyClient) -> x509.Certificate:
        return await Proxy(client, NAMES[0], "1-1").certify()

    play(directory, first)
    (path,) = (directory / "issued").glob("*.json")
    former = json.loads(path.read_text())
    path.write_text(json.dumps(former | {"at_s": time.time() - 9.8, "valid_until_s": time.time() + 2}))
    assert f"{play(directory, second).serial_number:x}" != former["serial"]


def test_another_issuer_signs_what_follows(directory: Path) -> None:
    rotated = OWN.with_issuer("cluster.local")

    async def scene(client: ProxyClient) -> x509.Certificate:
        held = await Proxy(client, NAMES[0], "1-1").started()
        authority.store_issuer(rotated.issuer, directory)
        await tell(directory, "issuer")
        await tell(directory, "renew", pods=PODS[:1], within_s=5)
        return await held

    leaf = play(directory, scene)
    leaf.verify_directly_issued_by(rotated.issuer.certificate)
    rotated.issuer.certificate.verify_directly_issued_by(OWN.anchor.certificate)
    assert rotated.anchor_pem == OWN.anchor_pem


def test_a_clock_that_is_ahead_shows_in_what_is_signed(directory: Path) -> None:
    async def scene(client: ProxyClient) -> Any:
        await tell(directory, "skew", by_s=3600)
        return await Proxy(client, NAMES[0], "1-1").certify()

    before = play(directory, scene).not_valid_before_utc - now()
    assert dt.timedelta(minutes=58) < before < dt.timedelta(minutes=61)


def test_who_starts_while_the_clock_is_ahead_is_answered_when_it_asks_again(directory: Path) -> None:
    """It has refused what it was given, has nothing else, and tries again in 10 s; that is not held."""

    async def first(client: ProxyClient) -> None:
        await tell(directory, "skew", by_s=3600)
        await Proxy(client, NAMES[0], "1-1").certify()
        await tell(directory, "skew", by_s=0)

    async def second(client: ProxyClient) -> x509.Certificate:
        return await Proxy(client, NAMES[0], "1-1").certify()

    play(directory, first)
    (path,) = (directory / "issued").glob("*.json")
    former = json.loads(path.read_text())
    path.write_text(json.dumps(former | {"at_s": former["at_s"] - 10}))
    assert play(directory, second).not_valid_before_utc < now()


def test_who_has_a_certificate_keeps_to_its_time_when_it_refuses_another(directory: Path) -> None:
    async def scene(client: ProxyClient) -> tuple[float, float]:
        held = await Proxy(client, NAMES[0], "1-1").started()
        had = last_answered(directory, PODS[0])
        await tell(directory, "skew", by_s=3600)
        await tell(directory, "renew", pods=PODS[:1], within_s=5)
        await held
        has = last_answered(directory, PODS[0])
        assert had is not None
        assert has is not None
        return had.valid_until_s, has.valid_until_s

    had, has = play(directory, scene)
    assert had == has


# --- services that fail ------------------------------------------------------------------------------


@pytest.fixture
def barely_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failing, "SLOW_S", 0.4)


def test_an_authority_that_refuses_says_so_to_who_is_due_only(directory: Path) -> None:
    async def scene(client: ProxyClient) -> Any:
        held = await Proxy(client, NAMES[0], "1-1").started()
        await tell(directory, "fail", services=["identity"], how="refused")
        started = await refusal(Proxy(client, NAMES[1], "1-1").certify())
        done, _ = await asyncio.wait([held], timeout=0.2)
        assert not done
        told = await tell(directory, "renew", pods=PODS[:1], within_s=5)
        with pytest.raises(grpc.aio.AioRpcError) as rotated:
            await held
        await tell(directory, "mend", services=["identity"])
        return started, told, rotated.value.code(), await Proxy(client, NAMES[1], "1-2").certify()

    started, told, rotated, _ = play(directory, scene)
    assert started[0] == "UNAVAILABLE"
    assert rotated is grpc.StatusCode.UNAVAILABLE
    assert (told["renewed"], told["why"]) == ([], "the identity service refuses every call")


@pytest.mark.usefixtures("barely_slow")
def test_a_slow_authority_answers_late(directory: Path) -> None:
    async def scene(client: ProxyClient) -> Any:
        await tell(directory, "fail", services=["identity"], how="slow")
        waiting = asyncio.create_task(Proxy(client, NAMES[0], "1-1").certify())
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        return await waiting

    assert isinstance(play(directory, scene), x509.Certificate)


@pytest.mark.parametrize("how", ["refused", "gone"])
def test_a_policy_controller_that_fails_ends_its_streams_and_no_others(directory: Path, how: str) -> None:
    async def scene(client: ProxyClient) -> Any:
        policy, endpoints = client.watch_port(WORKLOAD, 8080), client.get_profile("x:1")
        await following(policy)
        await following(endpoints)
        await tell(directory, "fail", services=["policy"], how=how)
        ended = await refusal(policy)
        later = await refusal(client.watch_port(WORKLOAD, 8081))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(endpoints.read(), 0.1)
        certified = await Proxy(client, NAMES[0], "1-1").certify()
        await tell(directory, "mend", services=["policy"])
        return ended, later, certified

    ended, later, _ = play(directory, scene)
    assert ended[0] in ("UNAVAILABLE", "CANCELLED")
    assert later[0] == "UNAVAILABLE"


@pytest.mark.usefixtures("barely_slow")
def test_a_slow_policy_controller_sends_a_push_late_and_its_reload_waits_for_it(directory: Path) -> None:
    async def scene(client: ProxyClient) -> Any:
        stream = client.watch_port(WORKLOAD, 8080)
        await following(stream)
        await tell(directory, "fail", services=["policy"], how="slow")
        write_private(directory / SNAPSHOT_FILE, STRICT.SerializeToString())
        behind = await tell(directory, "reload", pods=["node-1"], within_s=0.1)
        return behind, await tell(directory, "reload", pods=["node-1"], within_s=5)

    behind, at_last = play(directory, scene)
    assert (behind["behind"], behind["sent"][0]["current"]) == (1, False)
    assert (at_last["behind"], at_last["sent"][0]["current"]) == (0, True)


def test_a_failure_goes_on_when_the_controller_is_started_again(directory: Path) -> None:
    async def first(_: ProxyClient) -> None:
        await tell(directory, "fail", services=["identity"], how="refused")
        await tell(directory, "skew", by_s=3600)

    async def second(client: ProxyClient) -> Any:
        refused = await refusal(Proxy(client, NAMES[0], "1-1").certify())
        await tell(directory, "mend", services=["identity"])
        return refused, await Proxy(client, NAMES[0], "1-2").certify()

    play(directory, first)
    refused, leaf = play(directory, second)
    assert refused[0] == "UNAVAILABLE"
    assert leaf.not_valid_before_utc > now() + dt.timedelta(minutes=58)


def test_a_push_while_policies_are_not_handed_out_waits_for_nobody(directory: Path) -> None:
    async def scene(client: ProxyClient) -> Any:
        await following(client.watch_port(WORKLOAD, 8080))
        await tell(directory, "fail", services=["policy"], how="gone")
        return await tell(directory, "reload", pods=["node-1"], within_s=60)

    assert play(directory, scene)["sent"] == []


def test_a_push_says_per_stream_when_it_was_written_and_where_nothing_differed(directory: Path) -> None:
    async def scene(client: ProxyClient) -> Any:
        streams = [client.watch_port(WORKLOAD, 8080), client.watch_port(WORKLOAD, 4191)]
        for stream in streams:
            await following(stream)
        write_private(directory / SNAPSHOT_FILE, STRICT.SerializeToString())
        return await tell(directory, "reload", pods=["node-1"], within_s=5)

    told = play(directory, scene)
    service, admin = sorted(told["sent"], key=lambda each: each["about"], reverse=True)
    assert (service["pod"], service["about"], service["current"]) == ("node-1", "inbound 8080", True)
    assert told["accepted_ns"] < service["sent_ns"] < time.monotonic_ns()
    assert (admin["about"], admin["current"], admin["sent_ns"]) == ("inbound 4191", True, None)


def test_a_push_waits_for_a_pod_whose_streams_are_away(directory: Path) -> None:
    async def scene(client: ProxyClient) -> Any:
        write_private(directory / SNAPSHOT_FILE, STRICT.SerializeToString())
        pushing = asyncio.create_task(tell(directory, "reload", pods=["node-1"], within_s=5))
        done, _ = await asyncio.wait([pushing], timeout=0.2)
        assert not done
        stream = client.watch_port(WORKLOAD, 8080)
        await following(stream)
        return await pushing

    assert play(directory, scene)["sent"][0]["sent_ns"]


def test_a_trust_anchor_is_replaced_with_or_without_the_former_one() -> None:
    new = authority.make_anchor("cluster.local", now())
    both = OWN.trusting(OWN.anchor, new)
    assert both.anchor_pem == OWN.anchor_pem + OWN.trusting(new).anchor_pem
    under = both.under(new, "cluster.local")
    under.issuer.certificate.verify_directly_issued_by(new.certificate)
    with pytest.raises(InvalidSignature):
        under.issuer.certificate.verify_directly_issued_by(OWN.anchor.certificate)
    assert under.trusted == both.trusted
    assert "PRIVATE" not in repr(under)


# --- what a study asks for ---------------------------------------------------------------------------


def inbound(cell: Cell, pushed: PolicyPush | None, node: str = "node-1") -> Any:
    """What the port of the cell's protocol at this node is judged by."""
    snapshot = LinkerdModel().snapshot(PLACEMENT, cell, 1, pushed)
    entry = next(each for each in snapshot.workloads if each.token == workload_token(PLACEMENT[node]))
    return entry.ports[PLACEMENT[node].workload.port(cell.protocol)]


def entries(server: Any) -> list[str]:
    """Names of all that may let a request in, in the order in which they are looked at."""
    kind = server.protocol.WhichOneof("kind")
    routes = getattr(getattr(server.protocol, kind), "http_routes" if kind == "detect" else "routes", ())
    found = [each.labels["name"] for route in routes for each in route.authorizations]
    return found + [each.labels["name"] for each in server.authorizations]


@pytest.mark.parametrize("rung", LADDER, ids=lambda rung: rung.name)
@pytest.mark.parametrize("protocol", [Protocol.HTTP1, Protocol.GRPC, Protocol.TCP])
def test_relevant_policies_stand_before_what_lets_requests_in(rung: Posture, protocol: Protocol) -> None:
    cell = replace(samples.CELL, posture=rung, protocol=protocol, length=1 if protocol is Protocol.TCP else 2)
    own = entries(inbound(cell, None))
    first = PolicyPush(PushPolicies(4, relevant=True), 0)
    pushed = entries(inbound(cell, first))
    share = 4 if protocol is Protocol.TCP else 2
    assert pushed[:share] == [f"added-0-{number:04d}" for number in range(0, 4, 4 // share)]
    assert pushed[share:] == own
    again = entries(inbound(cell, PolicyPush(PushPolicies(1, relevant=True), 1)))
    assert again == ["added-1-0000", *own], "instead of the former ones"


@pytest.mark.parametrize("rung", LADDER, ids=lambda rung: rung.name)
def test_policies_elsewhere_change_nothing_that_these_proxies_are_sent(rung: Posture) -> None:
    cell = replace(samples.CELL, posture=rung)
    made = [
        LinkerdModel().snapshot(PLACEMENT, cell, 1, pushed).fingerprint
        for pushed in (None, PolicyPush(PushPolicies(1000), 0))
    ]
    assert made[0] == made[1]


def test_what_was_sent_is_told_by_proxy() -> None:
    def stream(pod: str, service: str, sent_ns: int | None, current: bool = True) -> dict[str, object]:
        about = f"{service} of {pod}"
        return {"pod": pod, "service": service, "about": about, "sent_ns": sent_ns, "current": current}

    told = {
        "version": 7, "accepted_ns": 100,
        "sent": [
            stream("a", "policy", 130), stream("a", "policy", 120), stream("a", "destination", None),
            stream("b", "policy", None),
            stream("c", "policy", None, current=False),
            stream("d", "destination", 110),
        ],
    }  # fmt: skip
    a, b, c, d = (sent.taken(told, pod) for pod in "abcd")
    assert a == Taken("a", 130, {"version": 7, "streams": 3, "sent": 2, "sent_after_ns": 30})
    assert b == Taken("b", 100, {"version": 7, "streams": 1, "sent": 0, "sent_after_ns": 0})
    assert (c.done_ns, c.detail[NOT_DONE]) == (None, "it was not sent the answers about policy of c")
    assert (d.done_ns, d.detail[NOT_DONE]) == (None, "it has no stream open on which policies are sent")


def test_what_cannot_happen_is_said() -> None:
    strict, plain = (replace(samples.CELL, posture=LADDER[rung]) for rung in (2, 0))
    for act in (Rotate(Rotated.LEAF), Skew(1, 1), Fail(Failing.RENEWAL, 1)):
        assert why_not(strict, act) is None
        assert why_not(plain, act) == "without mutual TLS no sidecar uses its certificate"
    for possible in (Fail(Failing.POLICY, 1), Restart(Restarted.CONTROLLER), PushPolicies(1)):
        assert why_not(plain, possible) is None
    claims = ChangePosture(Posture(MtlsMode.STRICT, Authorization.REQUEST))
    rsa = replace(plain, key_type=KeyType.RSA_2048)
    assert why_not(strict, claims) is None
    assert why_not(rsa, ChangePosture(LADDER[2])) == "Linkerd's proxies have ECDSA P-256 keys and no other"


def nobody(workload: str) -> None:
    raise AssertionError("nothing is started again here")


@pytest.mark.parametrize("act", [Rotate(Rotated.LEAF), PushPolicies(1, relevant=True)])
def test_while_the_control_plane_is_gone_nothing_is_taken_up_and_the_trial_goes_on(
    tmp_path: Path, act: Rotate | PushPolicies
) -> None:
    """What was pushed is in the directory, for the controller that comes back."""
    mesh, placement = LinkerdMesh(), samples.placement(directory=tmp_path)
    cell = replace(samples.CELL, posture=LADDER[2])
    mesh.prepare(placement, cell)
    taken = mesh.carry_out(placement, cell, act, FakeReach(), nobody)
    assert [each.workload for each in taken] == ["client", "node-1"]
    assert {each.done_ns for each in taken} == {None}
    assert all("does not answer" in str(each.detail[NOT_DONE]) for each in taken)
    snapshot = read_index(tmp_path / CONTROLLER_DIRECTORY)
    names = entries(snapshot.server(WORKLOAD, 8080))
    assert ("added-0-0000" in names) == isinstance(act, PushPolicies)
