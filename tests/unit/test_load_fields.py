"""Methods, paths and header fields: carried out by every protocol, or refused with a word."""

from __future__ import annotations

import pytest
from hpack import Decoder
from tests.support.loads import load_spec

from meshwise.core.errors import MeshwiseError
from meshwise.load.fields import check_request
from meshwise.load.instrument import check_spec
from meshwise.load.requests import encode
from meshwise.load.script import ScriptLine, encode_script, write_script
from meshwise.load.spec import LoadSpec
from meshwise.load.wire import frames
from meshwise.study.model import Protocol

METHODS = {Protocol.HTTP1: "GET", Protocol.HTTP2: "GET", Protocol.GRPC: "POST"}
HTTP = list(METHODS)
OVER_HTTP2 = [Protocol.HTTP2, Protocol.GRPC]


def asking(protocol: Protocol, *headers: tuple[str, str], **changes: object) -> LoadSpec:
    return load_spec(
        80, protocol, **{"method": METHODS[protocol], "path": "/p.S/M", "headers": headers, **changes}
    )


def sent(spec: LoadSpec) -> list[tuple[bytes, bytes]]:
    """The fields of a request as they go out, those of the request line left out."""
    protocol = encode(spec).protocol()
    if spec.protocol is Protocol.HTTP1:
        lines = protocol.start(0).split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
        return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    protocol.receive(frames.settings({}), 1)
    [block] = [
        payload for kind, _, _, payload in frames.split(protocol.start(0))[0] if kind == frames.HEADERS
    ]
    return [(bytes(name), bytes(value)) for name, value in Decoder().decode(block, raw=True)]


def values(spec: LoadSpec, *names: bytes) -> list[bytes]:
    return [value for name, value in sent(spec) if name.lower() in names]


@pytest.mark.parametrize("protocol", HTTP)
def test_the_user_s_host_stands_in_place_of_ours(protocol: Protocol) -> None:
    assert values(asking(protocol, ("Host", "shop.example")), b"host", b":authority") == [b"shop.example"]
    assert values(asking(protocol), b"host", b":authority") == [b"127.0.0.1:80"]


@pytest.mark.parametrize("protocol", HTTP)
def test_the_user_s_field_stands_in_place_of_a_built_in_one(protocol: Protocol) -> None:
    named = asking(protocol, ("User-Agent", "me"), ("Content-Type", "application/grpc+proto"))
    assert values(named, b"user-agent") == [b"me"]
    assert values(named, b"content-type") == [b"application/grpc+proto"]


def test_te_trailers_is_sent_once() -> None:
    assert values(asking(Protocol.GRPC, ("TE", "trailers")), b"te") == [b"trailers"]
    assert values(asking(Protocol.GRPC), b"te") == [b"trailers"]
    assert values(asking(Protocol.HTTP1, ("TE", "gzip")), b"te") == [b"gzip"]


@pytest.mark.parametrize("protocol", HTTP)
@pytest.mark.parametrize("text", ["Jürgen", "Łódź", "例え", "a\tb"])
def test_values_go_out_as_they_were_typed(protocol: Protocol, text: str) -> None:
    spec = asking(protocol, ("x-user", text), ("x-size", "{response_bytes}"))
    check_request(spec)
    assert values(spec, b"x-user") == [text.encode()]
    raw = b"\xfc\xff".decode("utf-8", "surrogateescape")  # typed in another encoding
    assert values(asking(protocol, ("x-user", raw)), b"x-user") == [b"\xfc\xff"]


@pytest.mark.parametrize("protocol", OVER_HTTP2)
@pytest.mark.parametrize(
    "name", ["Upgrade", "Keep-Alive", "proxy-connection", "Connection", "TE", "HTTP2-Settings"]
)
def test_fields_that_http2_forbids_are_refused_by_name(protocol: Protocol, name: str) -> None:
    with pytest.raises(MeshwiseError) as caught:
        check_spec(asking(protocol, (name, "x")))
    assert (caught.value.code, caught.value.exit_status) == ("MW303", 2)
    assert name in caught.value.what


def test_http1_carries_an_upgrade() -> None:
    spec = asking(Protocol.HTTP1, ("Upgrade", "websocket"), ("Keep-Alive", "timeout=5"))
    check_spec(spec)
    assert values(spec, b"upgrade", b"keep-alive") == [b"websocket", b"timeout=5"]


@pytest.mark.parametrize("protocol", HTTP)
@pytest.mark.parametrize(
    "header",
    [
        ("x", "a\r\nb: c"), ("x", "a\nb"), ("x", "a\0b"), ("x", "a\x7f"), ("x y", "z"), ("", "z"),
        ("x\r\ny", "z"), ("é", "z"), (":authority", "z"), ("host", ""), ("host", "a b"),
        ("content-length", "5"), ("transfer-encoding", "chunked"),
    ],
)  # fmt: skip
def test_headers_that_are_none_are_refused(protocol: Protocol, header: tuple[str, str]) -> None:
    with pytest.raises(MeshwiseError) as caught:
        check_spec(asking(protocol, header))
    assert (caught.value.code, caught.value.exit_status) == ("MW302", 2)


def test_one_host_is_enough() -> None:
    with pytest.raises(MeshwiseError):
        check_spec(asking(Protocol.HTTP1, ("Host", "a"), ("host", "a")))


@pytest.mark.parametrize("protocol", HTTP)
@pytest.mark.parametrize(
    "method", ["GET / HTTP/1.1\r\nX-INJECTED: 1\r\nX:", "GET ", "", "GÉT", "GET\n", "CONNECT"]
)
def test_methods_that_are_none_are_refused(protocol: Protocol, method: str) -> None:
    with pytest.raises(MeshwiseError) as caught:
        check_spec(asking(protocol, method=method))
    assert (caught.value.code, caught.value.exit_status) == ("MW303", 2)


def test_a_call_of_grpc_is_a_post() -> None:
    with pytest.raises(MeshwiseError, match="never GET"):
        check_spec(asking(Protocol.GRPC, method="GET"))
    check_spec(asking(Protocol.GRPC))


PATHS = ["/пакет.S/M", "/a.B", "/a.B/", "//M", "/a.B/C/D", "/a b.B/C", "/a.B/C\r\nx: y", "a.B/C"]


@pytest.mark.parametrize("path", PATHS)
def test_grpc_methods_that_are_none_are_refused(path: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    spec = asking(Protocol.GRPC, path=path)
    with pytest.raises(MeshwiseError) as caught:
        check_spec(spec)
    assert (caught.value.code, caught.value.exit_status) == ("MW303", 2)
    write_script(tmp_path / "script", [ScriptLine("/a.B/C", ""), ScriptLine(path, "")])
    with pytest.raises(MeshwiseError):
        encode_script(spec, tmp_path / "script")


@pytest.mark.parametrize("path", ["/a b", "/ä", "/a\r\nx: y", ""])
def test_paths_that_are_none_are_refused(path: str) -> None:
    for protocol in (Protocol.HTTP1, Protocol.HTTP2):
        with pytest.raises(MeshwiseError) as caught:
            check_spec(asking(protocol, path=path))
        assert caught.value.code == "MW303"


def test_opaque_tcp_reads_none_of_them() -> None:
    check_spec(load_spec(80, Protocol.TCP, method="", path="", headers=(("x y", ""),)))


def test_an_answer_to_head_has_no_body_in_scripts_too(tmp_path) -> None:  # type: ignore[no-untyped-def]
    write_script(tmp_path / "script", [ScriptLine("/a", "")])
    make, _ = encode_script(asking(Protocol.HTTP1, method="HEAD"), tmp_path / "script")
    protocol = make()
    protocol.start(1)
    assert len(protocol.receive(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n", 1)) == 1
