"""What is typed after `meshwise load`: what it means, and how it is refused."""

from __future__ import annotations

import dataclasses
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.test_load_report import SPEC

from meshwise.cli.load_options import (
    MESSAGE_BYTES,
    ascii_name,
    check_room,
    parse_grpc_path,
    parse_headers,
    parse_method,
    parse_server_name,
    parse_url,
    read_message,
)
from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.core.memory import available_bytes
from meshwise.load.instrument import check_descriptors, check_spec
from meshwise.load.records import PEAK_ROW_BYTES
from meshwise.load.spec import TlsSpec
from meshwise.load.transport import tls_context
from meshwise.load.wire.blocks import encode_block
from meshwise.load.wire.http1 import encode_request
from meshwise.study.model import Arrivals, Protocol


@pytest.mark.parametrize(
    ("text", "tls", "port", "path", "authority"),
    [
        ("http://127.0.0.1", False, 80, "/", "127.0.0.1"),
        ("http://127.0.0.1:8080/a/b?c=d#e", False, 8080, "/a/b?c=d", "127.0.0.1:8080"),
        ("https://127.0.0.1/x", True, 443, "/x", "127.0.0.1"),
        ("https://[::1]:444/", True, 444, "/", "[::1]:444"),
    ],
)
def test_urls(text: str, tls: bool, port: int, path: str, authority: str) -> None:
    target = parse_url(text)
    assert (target.tls, target.port, target.path, target.authority) == (tls, port, path, authority)


@pytest.mark.parametrize(
    "text", ["127.0.0.1:80", "ftp://a/", "http:///x", "http://a:99999/", "http://u@127.0.0.1/", "http://[::1/",
             "http://127.0.0.1:0/", "http://127.0.0.1/a b", "http://127.0.0.1/é", ""]
)  # fmt: skip
def test_what_is_not_a_url(text: str) -> None:
    assert _code(lambda: parse_url(text)) == "MW301"


@pytest.mark.parametrize("zone", ["%lo", "%25lo"])
def test_a_link_local_address_keeps_its_interface_but_not_for_the_server(zone: str) -> None:
    target = parse_url(f"http://[fe80::1{zone}]:8080/")
    assert (target.addresses, target.authority) == (("fe80::1%lo",), "[fe80::1]:8080")


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("fe80::1", "needs its interface: [fe80::1%"),
        ("fe80::1%nosuch", "there is no interface `nosuch` here; there are: lo"),
        ("::1%lo", "only a link-local address has an interface"),
    ],
)
def test_an_interface_that_cannot_be_is_said(host: str, why: str) -> None:
    error = _error(lambda: parse_url(f"http://[{host}]:80/"))
    assert error.code == "MW301"
    assert why in error.what


def test_a_certificate_that_is_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ca.pem")
    spec = TlsSpec("a", str(tmp_path / "ca.pem"), None, None)
    error = _error(lambda: tls_context(spec, Protocol.HTTP1))
    assert (error.code, error.what) == (
        "MW304", "the CA file cannot be used: it is a FIFO, not a regular file",
    )  # fmt: skip


def test_a_host_without_an_address() -> None:
    assert _code(lambda: parse_url("http://no.such.host.invalid/")) == "MW308"


def test_headers() -> None:
    assert parse_headers(["a:b", "C:  d:e "]) == (("a", "b"), ("C", "d:e"))


def test_a_header_s_value_is_sent_as_it_was_typed() -> None:
    """In UTF-8, and a byte of another encoding as that byte."""
    headers = parse_headers(["x-user: Jürgen ☃", os.fsdecode(b"x-old: J\xfcrgen")])
    request = encode_request("GET", "/", "a", headers, b"")
    block = encode_block(headers)
    for sent in ("x-user: Jürgen ☃".encode(), b"x-old: J\xfcrgen"):
        name, _, value = sent.partition(b": ")
        assert sent + b"\r\n" in request
        assert name in block
        assert value in block


@pytest.mark.parametrize(
    "text", ["none", ": x", "a b: c", "a: b\r\nc: d", "a: \x1b", "a: b\x00", "é: x", "Content-Length: 3"]
)
def test_what_is_not_a_header(text: str) -> None:
    assert _code(lambda: parse_headers([text])) == "MW302"


@pytest.mark.parametrize(
    "change",
    [
        {"connections": 0}, {"connections": 100_000}, {"streams": 0}, {"streams": 2}, {"processes": 0},
        {"processes": 2}, {"duration_ns": 0}, {"warmup_ns": -1}, {"timeout_ns": 0}, {"rate_rps": 0.0},
        {"spin_ns": -1}, {"cpu": 100_000},
    ],
)  # fmt: skip
def test_runs_that_cannot_be(change: dict[str, int | float]) -> None:
    error = _error(lambda: check_spec(dataclasses.replace(SPEC, **change)))  # type: ignore[arg-type]
    assert (error.code, error.exit_status) == ("MW303", ExitStatus.BAD_INPUT)


def test_runs_that_can_be() -> None:
    check_spec(SPEC)
    check_spec(dataclasses.replace(SPEC, arrivals=Arrivals.CLOSED, rate_rps=0.0))
    check_spec(dataclasses.replace(SPEC, protocol=Protocol.HTTP2, streams=8, connections=2, processes=2))


def test_the_limit_of_descriptors_is_checked_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 512))
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    check_descriptors(dataclasses.replace(SPEC, connections=300))
    assert raised == [(328, 512)]
    error = _error(lambda: check_descriptors(dataclasses.replace(SPEC, connections=600)))
    assert (error.code, error.exit_status) == ("MW307", ExitStatus.ENVIRONMENT)


def test_tls_files_that_cannot_be_used(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    for tls in (
        TlsSpec("n", ca_file=str(bad)),
        TlsSpec("n", ca_file=str(tmp_path / "absent")),
        TlsSpec("n", cert_file=str(bad)),
        TlsSpec("n", cert_file=str(tmp_path / "absent")),
    ):
        assert _code(lambda tls=tls: tls_context(tls, Protocol.HTTP1)) == "MW304"  # type: ignore[misc]


def test_opaque_tcp_is_a_port_without_a_path() -> None:
    target = parse_url("tcp://127.0.0.1:8083")
    assert (target.opaque, target.tls, target.addresses, target.port) == (True, False, ("127.0.0.1",), 8083)
    assert _code(lambda: parse_url("tcp://127.0.0.1:8083/echo")) == "MW301"
    assert _code(lambda: parse_url("tcp://127.0.0.1")) == "MW301"


def test_opaque_tcp_has_one_request_at_a_time() -> None:
    check_spec(dataclasses.replace(SPEC, protocol=Protocol.TCP))
    error = _error(lambda: check_spec(dataclasses.replace(SPEC, protocol=Protocol.TCP, streams=2)))
    assert "tcp has one stream" in error.what


def test_a_message_that_cannot_be_read(tmp_path: Path) -> None:
    assert _code(lambda: read_message(tmp_path / "absent")) == "MW303"
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)
    os.mkfifo(tmp_path / "fifo")
    for endless, why in (("sparse", "larger than 64MiB"), ("fifo", "a FIFO"), ("/dev/zero", "a device")):
        error = _error(lambda path=tmp_path / endless: read_message(path))  # type: ignore[misc]
        assert (error.code, why in error.what) == ("MW303", True)
    (tmp_path / "whole").write_bytes(bytes(MESSAGE_BYTES))
    assert len(read_message(tmp_path / "whole")) == MESSAGE_BYTES


def _error(call: Callable[[], object]) -> MeshwiseError:
    with pytest.raises(MeshwiseError) as caught:
        call()
    assert caught.value.remedy
    return caught.value


def _code(call: Callable[[], object]) -> str:
    return _error(call).code


# --- what would cross into the child ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("shop.example", "shop.example"), ("例え.test", "xn--r8jz45g.test"),
        ("Faß.DE", "xn--fa-hia.de"), ("a_b.example.", "a_b.example."),
        ("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)  # fmt: skip
def test_names_of_hosts(host: str, name: str) -> None:
    assert ascii_name(host) == name


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "a.-b", "a b", "a\nb", "a/b", ".".join(["a" * 63] * 5)])
def test_what_is_no_name_of_a_host(host: str) -> None:
    error = _error(lambda: parse_server_name(host))
    assert (error.code, error.what.startswith("--server-name: ")) == ("MW303", True)
    assert _code(lambda: parse_url(f"http://{host}/")) in ("MW301", "MW308")


@pytest.mark.parametrize("text", ["", "GET / HTTP/1.1\r\nx: y", "GÉT", "G T"])
def test_what_is_no_method(text: str) -> None:
    error = _error(lambda: parse_method(text))
    assert (error.exit_status, error.what.startswith("--method: ")) == (ExitStatus.BAD_INPUT, True)


def test_grpc_methods() -> None:
    assert parse_grpc_path("a.B/C", "") == parse_grpc_path("/a.B/C", "") == "/a.B/C"
    for text in ("пакет.S/M", "a/b\r\nx", "a", "a/", "/a", "a/b/c", "a b/c", "//a"):
        assert _error(lambda text=text: parse_grpc_path(text, "--grpc-method: ")).what.startswith(
            "--grpc-method"
        )


def test_more_requests_than_memory_holds_are_refused() -> None:
    spec = dataclasses.replace(SPEC, rate_rps=1000, warmup_ns=10**9, duration_ns=99 * 10**9)
    check_room(spec, 100_000 * PEAK_ROW_BYTES)
    error = _error(lambda: check_room(spec, 99_999 * PEAK_ROW_BYTES))
    assert error.exit_status is ExitStatus.BAD_INPUT
    assert error.what.startswith("--rate and --duration ask for 100,000 requests")
    assert error.remedy == "lower --rate, or --duration to 1m 29s"
    check_room(dataclasses.replace(spec, arrivals=Arrivals.CLOSED), 1)


def test_memory_is_what_machine_and_groups_leave(tmp_path: Path) -> None:
    """cgroup v2: the group inside has no limit, the one around it has; its page cache gives way."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    8000 kB\n")
    assert available_bytes(tmp_path) == 8_192_000
    (tmp_path / "proc/self/cgroup").write_text("0::/outer/inner\n")
    outer = tmp_path / "sys/fs/cgroup/outer"
    (outer / "inner").mkdir(parents=True)
    (outer / "inner/memory.max").write_text("max\n")
    (outer / "memory.max").write_text("5000000\n")
    (outer / "memory.current").write_text("4000000\n")
    (outer / "memory.stat").write_text("anon 1\ninactive_file 250000\n")
    assert available_bytes(tmp_path) == 1_250_000
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/\n0::/outer/inner\n")
    old = tmp_path / "sys/fs/cgroup/memory"
    old.mkdir()
    (old / "memory.limit_in_bytes").write_text("1000000\n")
    (old / "memory.usage_in_bytes").write_text("1200000\n")
    assert available_bytes(tmp_path) == 0
