"""The small parts: generated messages, metrics, hello, environment, binary, counters of a hop, samples."""

from __future__ import annotations

import re
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
from tests.support import linkerd_samples as samples
from tests.support.sampler_conformance import SamplerConformance

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.mesh.hello import Choice, choice_of, client_hello, parse_server_hello
from meshwise.mesh.identity import store
from meshwise.mesh.linkerd import authority, binary, command, direct, hops, proof, sidecar, wire
from meshwise.mesh.linkerd import mesh as mesh_module
from meshwise.mesh.linkerd.admin import ProxyAdmin, Series, grown, parse, total
from meshwise.mesh.linkerd.destinations import Transport
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.linkerd.proto import generate
from meshwise.mesh.linkerd.sampler import ProxySampler
from meshwise.study.model import LADDER
from meshwise.telemetry.seam import Sampler
from meshwise.testbed.local.reach import LocalReach

PROTO = Path(generate.__file__).parent


# --- generated messages ------------------------------------------------------------------------------


def test_the_generated_messages_are_current(tmp_path: Path) -> None:
    """`python -m meshwise.mesh.linkerd.proto.generate` makes them anew."""
    assert generate.generate(tmp_path) == 0
    made = sorted(tmp_path.rglob("*_pb2.py"))
    assert [path.name for path in made] == sorted(path.name for path in PROTO.glob("*_pb2.py"))
    for path in made:
        module = import_module(f"meshwise.mesh.linkerd.proto.{path.stem}")
        (fresh,) = re.findall(r"AddSerializedFile\((b'.*')\)$", path.read_text(), re.MULTILINE)
        assert eval(fresh) == module.DESCRIPTOR.serialized_pb, path.name  # noqa: S307 - a bytes literal


@pytest.mark.parametrize("text", ["10.96.1.2:8080", "[fd00::1:2]:443", "0.0.0.0:1", "255.255.255.255:65535"])
def test_addresses_survive_the_wire(text: str) -> None:
    host, _, port = text.rpartition(":")
    assert wire.address_text(wire.tcp_address(host.strip("[]"), int(port))) == text


def test_durations_have_nanoseconds() -> None:
    assert (wire.duration(0.03).seconds, wire.duration(0.03).nanos) == (0, 30_000_000)
    assert (wire.duration(10).seconds, wire.duration(10).nanos) == (10, 0)


# --- metrics -----------------------------------------------------------------------------------------

METRICS = r"""# HELP request_total Total.
# TYPE request_total counter
request_total{direction="inbound",tls="true",client_id="a.b"} 3
request_total{direction="outbound",tls="no_identity",no_tls_reason="loopback"} 4
request_total_more{direction="inbound"} 99
odd{text="a \"quoted\" \\ back, {brace} \n line"} 1.5e3
process_threads 2
"""


def test_metrics_are_read() -> None:
    found = parse(METRICS, {"request_total", "odd", "process_threads"})
    assert total(found, "request_total") == 7
    assert total(found, "request_total", direction="inbound") == 3
    assert total(found, "process_threads") == 2
    (odd,) = (each for each in found if each.name == "odd")
    assert odd.labels["text"] == 'a "quoted" \\ back, {brace} \n line'
    assert odd.value == 1500
    assert total(found, "request_total_more") == 0


def test_growth_is_per_series() -> None:
    before = [Series("a", {"x": "1"}, 3.0), Series("a", {"x": "2"}, 5.0)]
    after = [Series("a", {"x": "1"}, 4.0), Series("a", {"x": "2"}, 5.0), Series("a", {"x": "3"}, 2.0)]
    assert {each.labels["x"]: each.value for each in grown(before, after)} == {"1": 1.0, "3": 2.0}


# --- hops --------------------------------------------------------------------------------------------


def test_a_hop_names_what_lets_its_request_through() -> None:
    cell = replace(samples.CELL, posture=LADDER[4], length=2)
    first, second = hops.hops(cell, samples.placement(), samples.made(cell))
    assert (str(first), str(second)) == ("client -> node-1", "node-1 -> node-2")
    assert first.policy_name == "node-1-http1/callers-of-node-1/callers-of-node-1"
    assert first.server_side["client_id"].startswith("client.frontend.")
    assert first.client_side["server_id"].startswith("node-1.backend.")


def test_connections_of_the_former_transport_are_seen() -> None:
    cell = replace(samples.CELL, posture=LADDER[2])
    (hop,) = hops.hops(cell, samples.placement(), samples.made(cell))

    def line(tls: str, target: str = hop.client_side["target_addr"], peer: str = "dst") -> Series:
        labels = {"direction": "outbound", "peer": peer, "target_addr": target, "tls": tls}
        return Series(hops.OPEN, labels, 1.0)

    assert (
        hops.stale(hop, [line("true"), line("no_identity", "10.0.0.9:1"), line("no_identity", peer="src")])
        == 0
    )
    assert hops.stale(hop, [line("true"), line("no_identity")]) == 1


# --- the hello ---------------------------------------------------------------------------------------


def test_a_servers_choice_is_read_from_the_wire(tmp_path: Path) -> None:
    """Against OpenSSL, which does not know the hybrid group: it asks again for one that it knows."""
    own = authority.make_authority()
    identity = authority.identity_for_prober(own.issuer, "web.shop.example", authority.make_key())
    files = store(identity, own.anchor_pem, tmp_path, "web")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.chain, files.key)
    names: list[str] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            accepted, _ = listener.accept()
            with accepted, pytest.raises((ssl.SSLError, OSError)):
                context.wrap_socket(accepted, server_side=True)

        thread = threading.Thread(target=answer)
        thread.start()
        choice = choice_of(lambda: socket.create_connection(listener.getsockname(), 5), "web.shop.example")
        thread.join()
    assert isinstance(choice, Choice)
    assert choice.version == "TLSv1.3"
    assert choice.cipher.startswith("TLS_AES_")
    assert choice.group in ("X25519", "X25519MLKEM768")
    assert names == ["web.shop.example"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed without an answer"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "record of type 72"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "alert 40"),
        (b"\x16\x03\x03\x00\x04\x0b\x00\x00\x00", "handshake message 11"),
        (b"\x16\x03\x03\x00\x06\x02\x00\x00\x02\x03\x03", "not TLS"),
    ],
)
def test_what_is_no_server_hello_is_said(answer: bytes, words: str) -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(answer)
    theirs.shutdown(socket.SHUT_WR)
    with theirs:
        assert words in str(choice_of(lambda: ours, "name"))


def test_the_hello_is_as_long_as_it_says() -> None:
    hello = client_hello("name.example", bytes(64))
    assert int.from_bytes(hello[3:5], "big") == len(hello) - 5
    assert int.from_bytes(hello[6:9], "big") == len(hello) - 9
    with pytest.raises(ValueError, match="instead of ServerHello"):
        parse_server_hello(hello[5:])


def test_the_transport_header_names_the_port() -> None:
    assert direct.header(8083) == b"transport.l5d.io/v1\r\n\r\n\x00\x00\x00\x03\x08\x93\x3f"
    assert direct.header(80)[-2:] == b"\x08\x50"


# --- a sidecar ---------------------------------------------------------------------------------------


def test_a_sidecar_is_told_every_value_of_helm() -> None:
    placement = samples.placement()
    found = sidecar.environment(placement["node-1"], placement, 2, b"-----PEM-----")
    assert all(name.startswith("LINKERD2_PROXY_") for name in found)
    values = {name.removeprefix("LINKERD2_PROXY_"): value for name, value in found.items()}
    assert values["CORES"] == values["CORES_MIN"] == values["CORES_MAX"] == "2"
    assert values["INBOUND_CONNECT_TIMEOUT"] == "100ms"
    assert values["INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL"] == "10s"
    assert values["INBOUND_IPS"] == placement["node-1"].pod_ip
    assert values["IDENTITY_LOCAL_NAME"] == "node-1.backend.serviceaccount.identity.linkerd.cluster.local"
    assert "IDENTITY_TRUST_ANCHORS" not in values, "its start reads the file"
    assert values["IDENTITY_MAX_REFRESH"] == "100ms", "so that a rotation can be answered when it is due"


def test_a_counted_sidecar_renews_as_linkerd_has_it_and_is_started_by_the_counter() -> None:
    placement = replace(samples.placement(), counted=True)
    found = sidecar.environment(placement["node-1"], placement, 1, b"-----PEM-----")
    assert found["LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS"] == "-----PEM-----"
    assert "LINKERD2_PROXY_IDENTITY_MAX_REFRESH" not in found
    assert sidecar.command("/bin/proxy", counted=True) == ("/bin/proxy",)


def test_every_start_of_a_sidecar_has_its_own_token_and_the_anchors_of_the_moment(tmp_path: Path) -> None:
    """A program in the proxy's place tells its environment."""
    placement = samples.placement(directory=tmp_path)
    placed = placement["node-1"]
    told = tmp_path / "told.sh"
    told.write_text('#!/bin/sh\necho "$LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS"; cat token.own\n')
    told.chmod(0o755)
    sidecar.lay_out(placed, placement, authority.make_key(), "secret", b"-----FIRST-----\n")

    def started() -> list[str]:
        argv = sidecar.command(str(told), counted=False)
        answer = subprocess.run(argv, cwd=tmp_path / "node-1", capture_output=True, text=True, check=True)
        return answer.stdout.splitlines()

    first = started()
    sidecar.trust(placed, placement, b"-----SECOND-----\n")
    second = started()
    assert (first[0], second[0]) == ("-----FIRST-----", "-----SECOND-----")
    assert {line.partition(".")[0] for line in (first[1], second[1])} == {"secret"}
    assert first[1] != second[1]
    assert stat.S_IMODE((tmp_path / "node-1" / "token.own").stat().st_mode) == 0o600


def test_what_proxies_read_at_their_start_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHWISE_LINKERD_PROXY", sys.executable)
    placement = samples.placement(directory=tmp_path)
    mesh = LinkerdMesh()
    mesh.prepare(placement, samples.CELL)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"key.p8", "csr.der", "token", "issuer.key.pem", "snapshot.pb", "identities.json"} <= {
        path.name for path in files
    }
    roles = [(plan.pod, plan.role) for plan in mesh.processes(placement, 1)]
    assert roles[0] == ("client", "controller")
    assert {pod for pod, role in roles if role == "proxy"} == {"client", "node-1", "node-2"}
    assert {pod for pod, role in roles if role == "relay"} == {"client", "node-1", "node-2"}


def test_every_start_has_fresh_tokens_and_the_same_keys(tmp_path: Path) -> None:
    placement = samples.placement(directory=tmp_path)
    mesh = LinkerdMesh()

    def files() -> tuple[bytes, bytes]:
        mesh.prepare(placement, samples.CELL)
        return (tmp_path / "node-1" / "token").read_bytes(), (tmp_path / "node-1" / "key.p8").read_bytes()

    (first, key), (second, same) = files(), files()
    assert first != second
    assert key == same


def test_a_control_plane_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(MeshwiseError) as caught:
        command.tell(tmp_path, "reload", "a", 5.0)
    assert caught.value.code == "MW421"


# --- the binary ----------------------------------------------------------------------------------------


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_proxy_introduces_itself(tmp_path: Path) -> None:
    banner = "[ 0.0001s] INFO ThreadId(01) linkerd2_proxy: release {} ({}) by linkerd on 2026-08-19"
    known = (("2.366.0", "aaaaaaaa", "yes"), ("0.0.0-dev", "29637b64f", "yes"), ("0.0.0-dev", "bbbb", "no; "))
    for version, revision, tried in known:
        said = banner.format(version, revision)
        found = binary.facts(program(tmp_path / revision, f"echo '{said}' >&2; exit 64"))
        assert found["version"] == f"v{version}"
        assert found["tried"].startswith(tried)
        assert found["digest"].startswith("sha256:")


@pytest.mark.parametrize("text", ["exit 0", "echo envoy", "sleep 0; echo 'linkerd2_proxy: nonsense'"])
def test_another_program_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(MeshwiseError) as caught:
        binary.facts(program(tmp_path / "other", text))
    assert caught.value.code == "MW423"
    assert "it ended with status 0" in caught.value.what


def test_a_binary_of_another_machine_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(b"\x7fELF" + bytes(14) + (183).to_bytes(2, "little") + bytes(44))
    path.chmod(0o755)
    with pytest.raises(MeshwiseError) as caught:
        binary.facts(path)
    assert caught.value.code == "MW423"


def test_without_a_binary_the_way_to_one_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MESHWISE_LINKERD_PROXY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MeshwiseError) as caught:
        binary.proxy_path()
    assert caught.value.code == "MW811"
    assert "meshwise proxies pull linkerd" in str(caught.value)
    monkeypatch.setenv("MESHWISE_LINKERD_PROXY", str(tmp_path / "nothing"))
    with pytest.raises(MeshwiseError) as caught:
        binary.proxy_path()
    assert caught.value.code == "MW423"


@pytest.mark.parametrize("way", ["unknown call", "never settles"])
def test_a_proxy_with_another_api_is_named_with_the_versions_that_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    banner = "[ 0.0001s] INFO ThreadId(01) linkerd2_proxy: release 3.1.0 (abcdef01) by us"
    monkeypatch.setenv(
        "MESHWISE_LINKERD_PROXY", str(program(tmp_path / "proxy", f"echo '{banner}'; exit 64"))
    )
    status = {"unknown_calls": ["/io.linkerd.proxy.x.X/Watch"] if way == "unknown call" else []}
    monkeypatch.setattr(command, "tell", lambda *_: status)

    def never(*_: object) -> None:
        raise messages.CONFIG_SLOW.error(pod="client", cell="c", timeout=5.0, waiting="node-1")

    monkeypatch.setattr(proof, "settle", never)
    mesh = LinkerdMesh()
    placement = samples.placement(directory=tmp_path)
    mesh.prepare(placement, samples.CELL)
    with pytest.raises(MeshwiseError) as caught:
        mesh.reset(placement, samples.CELL, LocalReach(lambda *_: socket.socket()))
    assert caught.value.code == "MW422"
    assert "v3.1.0" in str(caught.value)
    assert "v2.366.0" in str(caught.value)
    assert any(each.code == "linkerd-version" for each in mesh.fidelity(privileged=True))


def test_without_a_resolver_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_module, "_RESOLVER", tmp_path / "resolv.conf")
    with pytest.raises(MeshwiseError) as caught:
        LinkerdMesh().prepare(samples.placement(directory=tmp_path), samples.CELL)
    assert caught.value.code == "MW424"


def test_differences_are_said_once_and_follow_the_transport() -> None:
    plain = {each.code for each in LinkerdMesh().fidelity(privileged=True)}
    other = {each.code for each in LinkerdMesh(Transport(False, False)).fidelity(privileged=False)}
    assert other - plain == {"linkerd-transparent", "linkerd-no-http2-upgrade", "linkerd-capture"}
    assert "linkerd-plaintext" in plain


# --- samples -------------------------------------------------------------------------------------------

RECORDED = (Path(__file__).parent.parent / "golden" / "linkerd" / "metrics.txt").read_text()


class AdminStandIn:
    """Answers every GET with recorded metrics of a real proxy."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._accepted: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def dial(self, _pod: str, _address: str, _port: int) -> socket.socket:
        return socket.create_connection(self._listener.getsockname(), 2)

    def end(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.close_connections()

    def close_connections(self) -> None:
        for connection in self._accepted:
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._accepted.clear()

    def _serve(self) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(RECORDED.encode())}\r\n\r\n"
        while True:
            try:
                connection, _ = self._listener.accept()
                self._accepted.append(connection)
                threading.Thread(target=self._answer, args=(connection, head), daemon=True).start()
            except OSError:
                return

    def _answer(self, connection: socket.socket, head: str) -> None:
        try:
            while connection.recv(65536):
                connection.sendall(head.encode() + RECORDED.encode())
        except OSError:
            return


@pytest.fixture
def admin() -> Iterator[AdminStandIn]:
    stand_in = AdminStandIn()
    yield stand_in
    with suppress(OSError):  # a test may have ended it already
        stand_in.end()


class TestProxySampler(SamplerConformance):
    @pytest.fixture(autouse=True)
    def _admin(self, admin: AdminStandIn) -> None:
        self.admin = admin

    def make(self) -> Sampler:
        return ProxySampler(samples.placement(), "node-1", LocalReach(self.admin.dial))

    def end_target(self) -> None:
        self.admin.end()


def test_a_kept_connection_that_was_closed_is_made_again(admin: AdminStandIn) -> None:
    with LocalReach(admin.dial) as reach:
        proxy = ProxyAdmin("node-1", reach)
        proxy.metrics(("request_total",))
        admin.close_connections()
        assert proxy.metrics(("request_total",))


def test_an_unready_proxy_is_named(admin: AdminStandIn) -> None:
    admin.end()
    with pytest.raises(MeshwiseError) as caught, LocalReach(admin.dial) as reach:
        ProxyAdmin("node-1", reach).metrics(("request_total",))
    assert caught.value.code == "MW406"
