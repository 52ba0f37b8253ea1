"""Which requests carry a trace context, and that each carries its own."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from tests.support.loads import load_spec

from meshwise.core.errors import MeshwiseError
from meshwise.load.instrument import check_spec
from meshwise.load.requests import encode
from meshwise.load.script import ScriptLine, write_script
from meshwise.load.spec import LoadSpec
from meshwise.load.traced import SLOT, Tracing, root_id, trace_key
from meshwise.load.wire import frames
from meshwise.load.wire.blocks import BlockDecoder
from meshwise.service.spans import read_context
from meshwise.study.model import Protocol

KEY = "00c0ffee00c0ffe1"


def spec(protocol: Protocol, share: float = 0.25, **more: object) -> LoadSpec:
    return replace(
        load_spec(1),
        protocol=protocol,
        traced_share=share,
        trace_key=KEY,
        connections=1,
        body_bytes=32,
        **more,
    )


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_the_share_is_kept_and_spread_without_a_period(share: float) -> None:
    chosen = [k for k in range(20_000) if Tracing(share, KEY).traces(k)]
    assert len(chosen) == pytest.approx(20_000 * share, abs=3)
    gaps = {after - before for before, after in pairwise(chosen)}
    assert len(gaps) <= 3, "three distances at most (Steinhaus)"
    assert share in (0.5, 1.0) or len(gaps) > 1


def test_a_trace_id_tells_the_request_of_its_run_only() -> None:
    tracing = Tracing(1.0, KEY)
    assert [tracing.number_of(tracing.trace_id(k)) for k in (0, 7, 2**40)] == [0, 7, 2**40]
    assert tracing.number_of(Tracing(1.0, trace_key("other")).trace_id(7)) is None


def contexts(sent: bytes, protocol: Protocol) -> list[bytes]:
    """Of each request in what was sent."""
    if protocol is Protocol.HTTP1:
        return [line[13:] for line in sent.split(b"\r\n") if line.startswith(b"traceparent: ")]
    blocks = BlockDecoder()
    parts, rest = frames.split(sent)
    assert not rest
    fields = (dict(blocks.decode(payload)) for kind, _, _, payload in parts if kind == frames.HEADERS)
    return [own[b"traceparent"] for own in fields if b"traceparent" in own]


@pytest.mark.parametrize("protocol", [Protocol.HTTP1, Protocol.HTTP2, Protocol.GRPC])
@pytest.mark.parametrize("scripted", [False, True])
def test_each_traced_request_goes_out_with_its_own_context(
    protocol: Protocol, scripted: bool, tmp_path: Path
) -> None:
    asked = spec(protocol)
    if scripted:
        path = "/meshwise.Echo/Call" if protocol is Protocol.GRPC else "/echo"
        write_script(tmp_path / "script", [ScriptLine(path, "one"), ScriptLine(path, "two")])
        asked = replace(asked, script=str(tmp_path / "script"))
    if protocol is Protocol.GRPC:
        asked = replace(asked, path="/meshwise.Echo/Call", method="POST")
    tracing = Tracing(0.25, KEY)
    plain, make = encode(replace(asked, traced_share=0.0)).protocol, encode(asked).protocol
    for number in range(40):
        one, other = make(), plain()
        for each in (one, other):
            each.limit, each.ready = 1, True
        sent, without = one.start(number), other.start(number)
        assert SLOT.encode() not in sent
        if not tracing.traces(number):
            assert sent == without, "a request that is not traced is as if nothing were"
            continue
        (context,) = contexts(sent, protocol)
        read = read_context(context)
        assert read is not None
        assert (read.trace_id.hex(), read.parent_id.hex()) == (tracing.trace_id(number), root_id(number))
        assert sent.endswith(without[-3:] if scripted else without[-32:]), "the same body"


def test_a_spec_survives_its_file_and_wrong_ones_are_refused() -> None:
    asked = spec(Protocol.HTTP1)
    assert LoadSpec.from_json(asked.to_json()) == asked
    for wrong in (
        replace(asked, trace_key="0" * 16), replace(asked, trace_key="x"), replace(asked, traced_share=1.5),
        replace(asked, processes=2, connections=2), replace(asked, protocol=Protocol.TCP),
    ):  # fmt: skip
        with pytest.raises(MeshwiseError, match="MW303"):
            check_spec(wrong)
