"""The control plane without a proxy: a client plays the proxy on every call, in and out of line."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from google.protobuf import json_format
from tests.support import linkerd_samples as samples
from tests.support.linkerd_client import ProxyClient, following, lay_out, now, refusal, serving, tell

from meshwise.mesh.files import write_private
from meshwise.mesh.linkerd import authority, relay
from meshwise.mesh.linkerd.names import (
    API_SOCKETS,
    SNAPSHOT_FILE,
    ControlService,
    identity_of,
    workload_token,
)
from meshwise.mesh.linkerd.proto import destination_pb2, inbound_pb2, outbound_pb2
from meshwise.study.model import LADDER

NODE = samples.placement()["node-1"]
NAME = identity_of(NODE.workload, samples.placement())
OTHER = identity_of(samples.placement()["node-2"].workload, samples.placement())
WORKLOAD = workload_token(NODE)
AUTHORITY_NAME = f"{NODE.workload.host}:8080"
TOKENS = {NAME: b"token-1", OTHER: b"token-2"}
STRICT, PERMISSIVE = (samples.made(replace(samples.CELL, posture=LADDER[rung]), version=2) for rung in (2, 1))
OWN = authority.make_authority()
KEY = authority.make_key()
CSR = authority.request_der(NAME, KEY)


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


def push(directory: Path, snapshot: Any) -> None:
    write_private(directory / SNAPSHOT_FILE, snapshot.SerializeToString())


# --- certificates ----------------------------------------------------------------------------------


def test_a_proxy_is_certified_as_linkerd_does_it(directory: Path) -> None:
    answer = play(directory, lambda client: client.certify(NAME, b"token-1", CSR))
    leaf = x509.load_der_x509_certificate(answer.leaf_certificate)
    (issuer,) = (x509.load_der_x509_certificate(der) for der in answer.intermediate_certificates)
    anchor = x509.load_pem_x509_certificate(OWN.anchor_pem)
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(anchor)
    assert leaf.public_key() == KEY.public_key()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == [NAME]
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    until = answer.valid_until.ToDatetime(dt.UTC)
    assert dt.timedelta(hours=23, minutes=59) < until - now() <= dt.timedelta(hours=24)
    assert leaf.not_valid_before_utc < now() - dt.timedelta(seconds=15), "an allowance for clock skew"


def signing_request(
    names: list[x509.GeneralName], common: str = "", key: Any = None, curve: ec.EllipticCurve | None = None
) -> bytes:
    key = key or ec.generate_private_key(curve or ec.SECP256R1())
    subject = [x509.NameAttribute(x509.NameOID.COMMON_NAME, common)] if common else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, authority.hashes.SHA256()).public_bytes(authority.serialization.Encoding.DER)


DNS = x509.DNSName
REFUSED: dict[str, tuple[str, bytes, bytes, str, str]] = {
    "no token": (NAME, b"", CSR, "INVALID_ARGUMENT", "token is missing"),
    "unknown token": (NAME, b"guess", CSR, "FAILED_PRECONDITION", "token is not known"),
    "another's token": (NAME, b"token-2", CSR, "FAILED_PRECONDITION", f"not that of {NAME}"),
    "another's name": (OTHER, b"token-1", CSR, "FAILED_PRECONDITION", f"not that of {OTHER}"),
    "no request": (NAME, b"token-1", b"", "INVALID_ARGUMENT", "not a certificate signing request"),
    "PEM": (NAME, b"token-1", b"-----BEGIN", "INVALID_ARGUMENT", "not a certificate signing request"),
    "no name": (NAME, b"token-1", signing_request([]), "FAILED_PRECONDITION", "only DNS name"),
    "other name": (NAME, b"token-1", signing_request([DNS(OTHER)]), "FAILED_PRECONDITION", "only DNS name"),
    "two names": (
        NAME, b"token-1", signing_request([DNS(NAME), DNS(OTHER)]), "FAILED_PRECONDITION", "only DNS name",
    ),
    "a URI": (
        NAME, b"token-1", signing_request([DNS(NAME), x509.UniformResourceIdentifier("spiffe://x/y")]),
        "FAILED_PRECONDITION", "other than DNS names",
    ),
    "an address": (
        NAME, b"token-1", signing_request([DNS(NAME), x509.RFC822Name("a@b.example")]),
        "FAILED_PRECONDITION", "other than DNS names",
    ),
    "other common name": (
        NAME, b"token-1", signing_request([DNS(NAME)], common="root"), "FAILED_PRECONDITION", "common name",
    ),
    "RSA": (
        NAME, b"token-1", signing_request([DNS(NAME)], key=rsa.generate_private_key(65537, 2048)),
        "FAILED_PRECONDITION", "not ECDSA P-256",
    ),
    "P-384": (
        NAME, b"token-1", signing_request([DNS(NAME)], curve=ec.SECP384R1()),
        "FAILED_PRECONDITION", "not ECDSA P-256",
    ),
    "altered": (NAME, b"token-1", CSR[:-4] + bytes(4), "", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_request_is_refused(directory: Path, name: str) -> None:
    identity, token, csr, code, words = REFUSED[name]
    seen = play(directory, lambda client: refusal(client.certify(identity, token, csr)))
    assert seen[0] == code if code else seen[0] in ("FAILED_PRECONDITION", "INVALID_ARGUMENT")
    assert words in seen[1]


@pytest.mark.parametrize(
    ("made_at", "life", "words"),
    [(now() - dt.timedelta(days=2), dt.timedelta(days=1), "expired"),
     (now() + dt.timedelta(hours=1), dt.timedelta(days=1), "not valid before")],
)  # fmt: skip
def test_an_issuer_out_of_its_time_signs_nothing(
    directory: Path, made_at: dt.datetime, life: dt.timedelta, words: str
) -> None:
    lay_out(
        directory, samples.made(samples.CELL), TOKENS, authority.make_authority(now=made_at, issuer_life=life)
    )
    code, text = play(directory, lambda client: refusal(client.certify(NAME, b"token-1", CSR)))
    assert code == "UNAVAILABLE"
    assert words in text


def test_a_leaf_never_outlives_its_issuer(directory: Path) -> None:
    short = authority.make_authority(issuer_life=dt.timedelta(hours=1))
    lay_out(directory, samples.made(samples.CELL), TOKENS, short)
    answer = play(directory, lambda client: client.certify(NAME, b"token-1", CSR))
    assert answer.valid_until.ToDatetime(dt.UTC) <= short.issuer.certificate.not_valid_after_utc


def test_a_short_life_is_issued_for_rotation(directory: Path) -> None:
    lay_out(directory, samples.made(samples.CELL), TOKENS, OWN, leaf_life_s=60)
    answer = play(directory, lambda client: client.certify(NAME, b"token-1", CSR))
    left = answer.valid_until.ToDatetime(dt.UTC) - now()
    assert dt.timedelta(seconds=50) < left <= dt.timedelta(seconds=60)


def test_a_long_name_is_certified_without_a_common_name() -> None:
    name = f"{'a' * 63}.{'b' * 60}.serviceaccount.identity.linkerd.cluster.local"
    key = authority.make_key()
    leaf = OWN.issuer.certify(name, authority.request_der(name, key), now(), authority.LEAF_LIFE)
    assert x509.load_der_x509_certificate(leaf.certificate).subject == x509.Name([])


# --- streams -----------------------------------------------------------------------------------------


def test_every_stream_gets_its_first_answer(directory: Path) -> None:
    async def scene(client: ProxyClient) -> list[Any]:
        streams = [
            client.watch_port(WORKLOAD, 8080),
            client.watch_outbound(NODE.service_ip, 8080),
            client.get(AUTHORITY_NAME),
            client.get_profile(f"{NODE.service_ip}:8080"),
            client.get_profile(AUTHORITY_NAME),
        ]
        return [await following(stream) for stream in streams]

    server, policy, update, by_address, by_name = play(directory, scene)
    snapshot = samples.made(samples.CELL)
    service = next(each for each in snapshot.services if each.authority == AUTHORITY_NAME)
    assert server.labels == {"group": "", "kind": "default", "name": "all-unauthenticated"}
    assert policy == service.policy
    assert update.add == service.endpoints
    assert by_address == by_name == service.profile


def test_what_is_not_there_is_answered_as_linkerd_does(directory: Path) -> None:
    async def scene(client: ProxyClient) -> list[Any]:
        return [
            await refusal(client.watch_port("nobody", 8080)),
            await refusal(client.watch_port(WORKLOAD, 0)),
            await refusal(client.watch_outbound("203.0.113.1", 443)),
            (await following(client.get("stranger.example:80"))).no_endpoints.exists,
            await following(client.get_profile("203.0.113.1:443")),
            (await following(client.watch_port(WORKLOAD, 9999))).labels["name"],
        ]

    workload, port, address, exists, profile, other_port = play(directory, scene)
    assert workload == ("NOT_FOUND", "no workload nobody")
    assert port[0] == "INVALID_ARGUMENT"
    assert address == ("NOT_FOUND", "no service at 203.0.113.1:443")
    assert exists is False
    assert profile.fully_qualified_name == ""
    assert other_port == "all-unauthenticated"


def test_a_new_snapshot_reaches_every_stream_before_it_is_acknowledged(directory: Path) -> None:
    """250 streams, as of many proxies; each has its new answer in hand when `reload` returns."""

    async def scene(client: ProxyClient) -> Any:
        streams = [client.watch_port(WORKLOAD, 1000 + number) for number in range(250)]
        first = [await following(stream) for stream in streams]
        push(directory, STRICT)
        status = await tell(directory, "reload")
        second = [await following(stream) for stream in streams]
        return first, second, status

    first, second, status = play(directory, scene)
    assert {each.labels["name"] for each in first} == {"all-unauthenticated"}
    assert {each.labels["name"] for each in second} == {"all-authenticated"}
    assert (status["version"], status["fingerprint"], status["behind"]) == (2, STRICT.fingerprint, 0)
    assert status["streams"] == 250


def test_an_answer_that_stays_the_same_is_not_sent_again(directory: Path) -> None:
    async def scene(client: ProxyClient) -> Any:
        stream = client.watch_port(WORKLOAD, 4191)
        await following(stream)
        push(directory, STRICT)
        assert (await tell(directory, "reload"))["version"] == 2
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.read(), 0.1)

    play(directory, scene)


def test_endpoints_lose_their_identity_in_plaintext_and_get_it_back(directory: Path) -> None:
    async def scene(client: ProxyClient) -> list[Any]:
        stream = client.get(AUTHORITY_NAME)
        seen = [await following(stream)]
        for version, rung in ((2, 1), (3, 0)):
            push(directory, samples.made(replace(samples.CELL, posture=LADDER[rung]), version=version))
            await tell(directory, "reload")
            seen.append(await following(stream))
        return [update.add.addrs[0].tls_identity.server_name.name for update in seen]

    assert play(directory, scene) == ["", NAME, ""]


def test_a_stream_that_goes_away_is_not_waited_for(directory: Path) -> None:
    async def scene(client: ProxyClient) -> Any:
        gone, stays = client.watch_port(WORKLOAD, 8080), client.watch_port(WORKLOAD, 8081)
        await following(gone)
        await following(stays)
        gone.cancel()
        push(directory, STRICT)
        status = await tell(directory, "reload")
        await following(stays)
        return status

    assert play(directory, scene)["version"] == 2


def test_a_call_of_another_api_is_remembered(directory: Path) -> None:
    async def scene(client: ProxyClient) -> Any:
        strange = client.stream("outbound.OutboundPolicies/WatchAll", STRICT, type(STRICT))
        return await refusal(strange), await tell(directory, "status"), await tell(directory, "nonsense")

    (code, _), status, nonsense = play(directory, scene)
    assert code == "UNIMPLEMENTED"
    assert status["unknown_calls"] == ["/io.linkerd.proxy.outbound.OutboundPolicies/WatchAll"]
    assert "error" in nonsense


def test_a_restarted_control_plane_goes_on_where_it_was(directory: Path) -> None:
    """The same directory, another process's life: the same answers, the same certificates' issuer."""
    push(directory, STRICT)

    async def scene(client: ProxyClient) -> Any:
        return await following(client.watch_port(WORKLOAD, 8080)), await client.certify(NAME, b"token-1", CSR)

    (first, one), (second, two) = play(directory, scene), play(directory, scene)
    assert first == second
    assert one.intermediate_certificates == two.intermediate_certificates


# --- the relay ---------------------------------------------------------------------------------------


@pytest.fixture
def relayed(directory: Path, free_port: int) -> Iterator[dict[ControlService, str]]:
    """Where each service is called through a relay."""
    ports = {service: free_port + number for number, service in enumerate(API_SOCKETS)}
    words = [
        word for service, name in API_SOCKETS.items() for word in (str(ports[service]), str(directory / name))
    ]
    process = subprocess.Popen([sys.executable, "-I", "-S", relay.__file__, "30", *words])
    while not listens(ports[ControlService.POLICY]) or not listens(ports[ControlService.IDENTITY]):
        assert process.poll() is None
        time.sleep(0.01)
    yield {service: f"127.0.0.1:{port}" for service, port in ports.items()}
    process.kill()
    process.wait()


def listens(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False


def test_the_relay_waits_for_the_controller_and_survives_it(
    directory: Path, relayed: dict[ControlService, str]
) -> None:
    async def scene() -> Any:
        client = ProxyClient(relayed)
        try:
            waiting = asyncio.create_task(client.certify(NAME, b"token-1", CSR))
            await asyncio.sleep(0)
            async with serving(directory):
                await waiting
                stream = client.watch_port(WORKLOAD, 8080)
                first = await following(stream)
            with pytest.raises(grpc.aio.AioRpcError):
                await stream.read()
            async with serving(directory):
                return first, await following(await patiently(client))
        finally:
            await client.close()

    first, second = asyncio.run(scene())
    assert first == second


async def patiently(client: ProxyClient) -> Any:
    """A stream about a policy, tried again while it is refused, as a proxy does."""
    while True:
        stream = client.watch_port(WORKLOAD, 8080)
        try:
            await stream.wait_for_connection()
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.02)
        else:
            return stream


def test_a_relayed_port_is_refused_while_its_service_is_gone_and_only_then(
    directory: Path, relayed: dict[ControlService, str]
) -> None:
    policy, identity = (
        int(relayed[each].rpartition(":")[2]) for each in (ControlService.POLICY, ControlService.IDENTITY)
    )

    async def until(port: int, wanted: bool) -> None:
        while await asyncio.to_thread(listens, port) != wanted:
            await asyncio.sleep(0.005)

    async def scene() -> bool:
        async with serving(directory):
            client = ProxyClient(relayed)
            await following(client.watch_port(WORKLOAD, 8080))
            await tell(directory, "fail", services=["policy"], how="gone")
            await until(policy, False)
            still = await asyncio.to_thread(listens, identity)
            await tell(directory, "mend", services=["policy"])
            await until(policy, True)
            await following(await patiently(client))
            await client.close()
            return still

    assert asyncio.run(scene())


@pytest.fixture
def free_port() -> int:
    """The first of three in a row."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            first = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = int(first.getsockname()[1])
            for more in (1, 2):
                stack.enter_context(socket.create_server(("127.0.0.1", port + more)))
            return port


# --- what a real proxy asks --------------------------------------------------------------------------

RECORDED = Path(__file__).parent.parent / "golden" / "linkerd" / "exchange.jsonl"
"""Recorded from linkerd2-proxy 29637b64f (`linkerd_world record`); an end-to-end test records it again."""

CALLS: dict[str, tuple[type, type]] = {
    "inbound.InboundServerPolicies/WatchPort": (inbound_pb2.PortSpec, inbound_pb2.Server),
    "outbound.OutboundPolicies/Watch": (outbound_pb2.TrafficSpec, outbound_pb2.OutboundPolicy),
    "destination.Destination/Get": (destination_pb2.GetDestination, destination_pb2.Update),
    "destination.Destination/GetProfile": (
        destination_pb2.GetDestination,
        destination_pb2.DestinationProfile,
    ),
}


def test_every_question_that_a_real_proxy_asked_is_answered(directory: Path) -> None:
    asked = [json.loads(line) for line in RECORDED.read_text().splitlines()]

    async def scene(client: ProxyClient) -> list[str]:
        empty = []
        for each in asked:
            method = each["method"].removeprefix("/io.linkerd.proxy.")
            if method not in CALLS:
                assert method == "identity.Identity/Certify"
                continue
            request, answer = CALLS[method]
            stream = client.stream(method, json_format.ParseDict(each["request"], request()), answer)
            if not (await following(stream)).ByteSize():
                empty.append(str(each))
        return empty

    assert play(directory, scene) == []
