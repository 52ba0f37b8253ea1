"""The receiver of spans, and what is read of what it keeps: bounded, counted, never fatal."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from meshwise.service import spans as own
from meshwise.telemetry.spans import read, receiver
from meshwise.telemetry.spans.read import Found
from meshwise.telemetry.spans.receiver import CONTROL, HEAD, Inbox, Received, ReceiverSpec, take

TRACE, SPAN, PARENT = b"\x01" * 16, b"\x02" * 8, b"\x03" * 8


def batch(count: int = 1, **more: Any) -> Any:
    made = trace_service_pb2.ExportTraceServiceRequest()
    resource = made.resource_spans.add()
    for key, value in (("service.name", "node-1.shop"), ("process.pid", 7)):
        pair = resource.resource.attributes.add(key=key)
        setattr(pair.value, "int_value" if isinstance(value, int) else "string_value", value)
    scope = resource.scope_spans.add()
    for number in range(count):
        values = {
            "trace_id": TRACE, "span_id": (number + 1).to_bytes(8, "big"), "parent_span_id": PARENT,
            "name": "GET", "kind": 2, "start_time_unix_nano": 2_000, "end_time_unix_nano": 5_000,
        }  # fmt: skip
        span = scope.spans.add(**{**values, **more})
        span.attributes.add(key="http.status_code").value.string_value = "200"
    return made


def kept(*raws: bytes) -> bytes:
    return b"".join(HEAD.pack(1, len(raw)) + raw for raw in raws)


def found_in(content: bytes, offset_ns: int = 0) -> Found:
    found = Found()
    read.of_otlp(content, offset_ns, found)
    return found


# --- reading -----------------------------------------------------------------------------------------------


def test_a_span_is_read_on_the_monotonic_clock() -> None:
    (span,) = found_in(kept(batch().SerializeToString()), offset_ns=1_500).spans
    assert (span.trace_id, span.parent_id) == (TRACE.hex(), PARENT.hex())
    assert (span.workload, span.role, span.kind) == ("node-1", "proxy", "server")
    assert (span.begun_ns, span.ended_ns) == (500, 3_500)
    assert json.loads(span.attributes) == {"http.status_code": "200"}


def test_the_pod_and_the_role_say_whose_it_is() -> None:
    made = batch()
    attributes = made.resource_spans[0].resource.attributes
    attributes.add(key="k8s.pod.name").value.string_value = "node-2"
    attributes.add(key=own.ROLE_ATTRIBUTE).value.string_value = "service"
    (span,) = found_in(kept(made.SerializeToString())).spans
    assert (span.workload, span.role) == ("node-2", "service")


@pytest.mark.parametrize(
    "wrong",
    [
        {"trace_id": b"short"}, {"trace_id": bytes(16)}, {"span_id": b""}, {"span_id": bytes(8)},
        {"parent_span_id": b"12345"}, {"end_time_unix_nano": 1_000}, {"start_time_unix_nano": 0},
        {"end_time_unix_nano": 2**64 - 1},
    ],
)  # fmt: skip
def test_a_span_that_makes_no_sense_is_counted_and_its_neighbours_stay(wrong: dict[str, Any]) -> None:
    made = batch()
    good = batch(2).resource_spans[0].scope_spans[0].spans[1]
    made = batch(**wrong)
    made.resource_spans[0].scope_spans[0].spans.append(good)
    found = found_in(kept(made.SerializeToString()))
    assert (len(found.spans), found.troubles.spans, found.troubles.batches) == (1, 1, 0)


def test_what_is_no_batch_is_counted_and_the_next_is_read() -> None:
    good = batch().SerializeToString()
    found = found_in(kept(good, b"\xff" * 40, good) + kept(good)[:-5])
    assert (len(found.spans), found.troubles.batches) == (2, 2)
    assert found_in(b"").spans == []


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_nothing_that_is_kept_can_raise(junk: bytes, place: int, letter: int) -> None:
    content = bytearray(kept(batch(2).SerializeToString(), junk) + junk)
    content[place % len(content)] = letter
    found = found_in(bytes(content))
    for span in found.spans:
        assert len(span.trace_id) == 32
        assert span.begun_ns <= span.ended_ns
    of_node = Found()
    read.of_node(bytes(content), "node-1", of_node)
    assert all(span.begun_ns <= span.ended_ns for span in of_node.spans)


def test_a_nodes_records_are_spans_and_its_losses_counts() -> None:
    record = own.RECORD.pack(TRACE, SPAN, PARENT, b"node-2", own.CLIENT, True, 10, 30)
    lost = own.RECORD.pack(b"", b"", b"", b"", own.LOST, True, 5, 0)
    backwards = own.RECORD.pack(TRACE, SPAN, PARENT, b"node-2", own.CLIENT, True, 30, 10)
    found = Found()
    read.of_node(record + lost + backwards + record[:10], "node-1", found)
    (span,) = found.spans
    assert (span.name, span.kind, span.status, span.role) == ("node-2", "client", "error", "service")
    assert (found.troubles.lost, found.troubles.spans, found.troubles.batches) == (5, 1, 1)


def test_of_equal_ids_the_first_counts() -> None:
    found = found_in(kept(*[batch(3).SerializeToString()] * 2))
    assert len(read.each_once(found.spans, found.troubles)) == 3
    assert found.troubles.twice == 3


# --- receiving ---------------------------------------------------------------------------------------------


def test_an_inbox_is_bounded_and_counts_what_it_throws_away(tmp_path: Path) -> None:
    raw = batch(10).SerializeToString()
    inbox = Inbox(tmp_path, 3 * (len(raw) + HEAD.size))
    assert [inbox.add(raw) for _ in range(5)] == [0, 0, 0, 10, 10]
    assert inbox.add(b"\xff" * len(raw)) == 0
    assert inbox.take("taken") == Received(batches=3, rejected_spans=20, rejected_unread=1)
    assert len(found_in((tmp_path / "taken").read_bytes()).spans) == 30
    assert inbox.add(raw) == 0, "it has room again"
    assert inbox.take("taken") == Received(batches=1)


@contextmanager
def running(directory: Path, **more: Any) -> Iterator[tuple[subprocess.Popen[str], int]]:
    ReceiverSpec(str(directory), port=0, **more).write(directory / "spec.json")
    words = [sys.executable, "-m", "meshwise.telemetry.spans.receiver", str(directory / "spec.json")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            (port,) = json.loads(process.stdout.readline())["ports"]
            yield process, port
        finally:
            process.terminate()


def exporter(channel: grpc.Channel) -> Any:
    return channel.unary_unary(
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        response_deserializer=trace_service_pb2.ExportTraceServiceResponse.FromString,
    )


def test_the_receiver_keeps_what_comes_says_what_it_rejects_and_survives_junk(tmp_path: Path) -> None:
    raw = batch(10).SerializeToString()
    with (
        running(tmp_path, most_bytes=2 * (len(raw) + HEAD.size) + 100) as (process, port),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        export = exporter(channel)
        answers = [export(raw, timeout=20) for _ in range(3)]
        assert [one.partial_success.rejected_spans for one in answers] == [0, 0, 10]
        assert export(b"\xff\xff", timeout=20).partial_success.rejected_spans == 0
        with pytest.raises(grpc.RpcError) as too_large:
            export(bytes(receiver.MOST_BATCH_BYTES + 1), timeout=20)
        assert too_large.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert process.poll() is None
        assert receiver.take(tmp_path, "taken", 20.0) == Received(batches=3, rejected_spans=10)
        assert oct((tmp_path / "taken").stat().st_mode)[-3:] == "600"
        assert export(raw, timeout=20).partial_success.rejected_spans == 0
    found = found_in((tmp_path / "taken").read_bytes())
    assert (len(found.spans), found.troubles.batches) == (20, 1)


def test_one_that_asks_and_does_not_wait_does_not_end_the_receiver(tmp_path: Path) -> None:
    with running(tmp_path):
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(str(tmp_path / CONTROL))
                line.sendall(b"take gone\n")
                line.shutdown(socket.SHUT_RD)
        assert take(tmp_path, "taken", 20) == Received()


def test_many_exporters_at_once_are_all_heard(tmp_path: Path) -> None:
    """Envoy sends a batch for every five spans and never again: what is refused is lost, and uncounted."""
    raw = batch(5).SerializeToString()
    with running(tmp_path) as (process, port), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        os.kill(process.pid, signal.SIGSTOP)  # it is kept from the CPU
        calls = [exporter(channel).future(raw, timeout=20) for _ in range(100)]
        os.kill(process.pid, signal.SIGCONT)
        assert [call.result().partial_success.rejected_spans for call in calls] == [0] * 100
        assert receiver.take(tmp_path, "taken", 20.0) == Received(batches=100)


def test_a_receiver_that_was_killed_does_not_answer(tmp_path: Path) -> None:
    with running(tmp_path) as (process, _):
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
        with pytest.raises(OSError):
            receiver.take(tmp_path, "taken", 1.0)
