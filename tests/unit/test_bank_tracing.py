"""The bank's spans by the OpenTelemetry SDK, received by the receiver: whose child each is."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the bank: `pip install 'meshwise[bank]'`")

from meshwise.load.traced import HEADER
from meshwise.service.bank.calls import Origin
from meshwise.service.bank.spec import BankService, BankSpec
from meshwise.service.bank.tracing import CallTracing, tracing_of, without_context
from meshwise.service.spans import read_context
from meshwise.study.model import Protocol
from meshwise.telemetry.spans import read
from meshwise.telemetry.spans.read import Found, ReadSpan
from meshwise.telemetry.spans.receiver import Inbox, server_of

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, IGNORED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


def spans_of(tracing: CallTracing, inbox: Inbox, directory: Path) -> list[ReadSpan]:
    tracing.close()
    inbox.take("taken")
    found = Found()
    read.of_otlp((directory / "taken").read_bytes(), 0, found)
    assert found.troubles == read.Troubles()
    return found.spans


def test_a_request_and_its_calls_are_spans_within_one_another(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, 1 << 20)
    server = server_of(inbox)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        spec = BankSpec(BankService.EDGE, {Protocol.HTTP1: 1}, collector=f"127.0.0.1:{port}")
        tracing = tracing_of(spec)
        origin = Origin.of(Protocol.HTTP1, [(HEADER, SAMPLED), ("x-request-id", "a"), ("x-envoy-x", "b")])
        with tracing.server("profile", origin.headers) as told:
            with tracing.client("users", origin.headers) as sent:
                pass
            told(503)
        for carried in ((), ((HEADER, IGNORED),), ((HEADER, "none"),)):
            with tracing.server("profile", carried) as told, tracing.client("users", carried) as unchanged:
                assert unchanged == carried
                told(200)
        by_kind = {span.kind: span for span in spans_of(tracing, inbox, tmp_path)}
    finally:
        server.stop(None)
    outer, call = by_kind["server"], by_kind["client"]
    assert (outer.trace_id, outer.parent_id) == (TRACE, PARENT)
    assert (call.trace_id, call.parent_id) == (TRACE, outer.span_id)
    assert (outer.workload, outer.role, outer.status, outer.name) == ("edge", "service", "error", "profile")
    fields = dict(sent)
    assert fields["x-request-id"] == "a", "Istio's sidecar goes by it"
    carried = read_context(fields[HEADER].encode())
    assert carried is not None
    assert carried.parent_id.hex() == call.span_id


def test_without_a_collector_contexts_are_passed_on_and_background_calls_have_none() -> None:
    tracing = tracing_of(BankSpec(BankService.EDGE, {Protocol.HTTP1: 1}))
    headers = ((HEADER, SAMPLED), ("x-tenant", "t"))
    with tracing.server("profile", headers), tracing.client("users", headers) as sent:
        assert sent == headers
    assert without_context(headers) == (("x-tenant", "t"),)
