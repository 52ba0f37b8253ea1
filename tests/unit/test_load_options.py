"""What is typed after `meshwise load`: what it means, and how it is refused."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.test_load_report import SPEC

from meshwise.cli.load_options import parse_headers, parse_url, read_message
from meshwise.core.errors import ExitStatus, MeshwiseError
from meshwise.load.instrument import check_descriptors, check_spec
from meshwise.load.spec import TlsSpec
from meshwise.load.transport import tls_context
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


def test_a_host_without_an_address() -> None:
    assert _code(lambda: parse_url("http://no.such.host.invalid/")) == "MW308"


def test_headers() -> None:
    assert parse_headers(["a:b", "C:  d:e "]) == (("a", "b"), ("C", "d:e"))


@pytest.mark.parametrize("text", ["none", ": x", "a b: c", "a: b\r\nc: d", "a: ☃", "Content-Length: 3"])
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
    assert (target.opaque, target.tls, target.address, target.port) == (True, False, "127.0.0.1", 8083)
    assert _code(lambda: parse_url("tcp://127.0.0.1:8083/echo")) == "MW301"
    assert _code(lambda: parse_url("tcp://127.0.0.1")) == "MW301"


def test_opaque_tcp_has_one_request_at_a_time() -> None:
    check_spec(dataclasses.replace(SPEC, protocol=Protocol.TCP))
    error = _error(lambda: check_spec(dataclasses.replace(SPEC, protocol=Protocol.TCP, streams=2)))
    assert "tcp has one stream" in error.what


def test_a_message_that_cannot_be_read(tmp_path: Path) -> None:
    assert _code(lambda: read_message(tmp_path / "absent")) == "MW303"


def _error(call: Callable[[], object]) -> MeshwiseError:
    with pytest.raises(MeshwiseError) as caught:
        call()
    assert caught.value.remedy
    return caught.value


def _code(call: Callable[[], object]) -> str:
    return _error(call).code
