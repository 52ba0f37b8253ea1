"""Which requests of a run have other headers, and that whoever reads the records can tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.support.loads import load_spec

from meshwise.core.errors import MeshwiseError
from meshwise.load.instrument import check_spec
from meshwise.load.requests import encode
from meshwise.load.spec import LoadSpec, TlsSpec
from meshwise.load.spread import GOLDEN, ROOT_OF_TWO, Spread
from meshwise.load.transport import tls_context
from meshwise.study.model import Protocol

BLUE, GREEN = (("x-tenant", "blue"),), (("x-tenant", "green"),)


def spec(protocol: Protocol, **more: object) -> LoadSpec:
    return replace(
        load_spec(1), protocol=protocol, headers=BLUE, other_headers=GREEN, other_share=0.25,
        connections=1, body_bytes=8, **more,
    )  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.01, 0.25, 1.0])
def test_marks_are_what_each_request_takes(share: float) -> None:
    spread = Spread(share, ROOT_OF_TWO)
    marks = spread.marks(20_000)
    assert marks.tolist() == [spread.takes(k) for k in range(20_000)]
    assert marks.sum() == pytest.approx(20_000 * share, abs=3)


def test_two_differences_of_one_run_are_independent() -> None:
    one, other = (Spread(0.25, step).marks(20_000) for step in (ROOT_OF_TWO, GOLDEN))
    assert (one & other).sum() == pytest.approx(20_000 / 16, rel=0.02)
    assert int(np.sqrt(2) % 1 * 2**20) == ROOT_OF_TWO >> 44


@pytest.mark.parametrize("protocol", [Protocol.HTTP1, Protocol.HTTP2, Protocol.GRPC])
@pytest.mark.parametrize("more", [{}, {"traced_share": 0.5, "trace_key": "00c0ffee00c0ffe1"}])
def test_the_marked_requests_and_no_others_have_the_other_headers(
    protocol: Protocol, more: dict[str, object]
) -> None:
    path = {"path": "/meshwise.Echo/Call", "method": "POST"} if protocol is Protocol.GRPC else {}
    asked = spec(protocol, **path, **more)
    marks = Spread(0.25, ROOT_OF_TWO).marks(60)
    assert asked.other is not None
    assert asked.other.marks(60).tolist() == marks.tolist()
    plain = {
        headers: encode(replace(asked, headers=headers, other_share=0.0)).protocol
        for headers in (BLUE, GREEN)
    }
    make = encode(asked).protocol
    for number in range(60):
        connections = [make(), plain[GREEN if marks[number] else BLUE]()]
        for each in connections:
            each.limit, each.ready = 1, True
        sent, wanted = (each.start(number) for each in connections)
        assert sent == wanted


def test_a_spec_survives_its_file_and_wrong_ones_are_refused() -> None:
    asked = spec(Protocol.HTTP1, tls=TlsSpec("name", alpn=("istio", "http/1.1")))
    assert LoadSpec.from_json(asked.to_json()) == asked
    assert LoadSpec.from_json(replace(asked, tls=TlsSpec("name")).to_json()).tls == TlsSpec("name")
    for wrong in (
        replace(asked, other_share=1.5), replace(asked, processes=2, connections=2),
        replace(asked, protocol=Protocol.TCP), replace(asked, script="lines"),
    ):  # fmt: skip
        with pytest.raises(MeshwiseError, match="MW303"):
            check_spec(wrong)


def test_what_is_offered_by_alpn_may_be_named_or_nothing() -> None:
    for alpn in (None, (), ("istio-h2", "h2")):
        assert tls_context(TlsSpec("name", alpn=alpn), Protocol.HTTP2).verify_mode.name == "CERT_NONE"
