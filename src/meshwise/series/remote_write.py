"""Prometheus remote write 1.0: a protobuf `WriteRequest` in snappy's block format by POST, tried again where
the server says later.

A receiver takes points of a series in order of time, and refuses what is more than an hour older than the
newest point it has of any series; so points go out by slices of time, all series of a slice before the next.
Source: the specification "Prometheus Remote-Write 1.0"; prometheus/prompb/remote.proto and types.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from meshwise.series.http import Endpoint, Retries
from meshwise.series.lines import AnySeries, PlainSeries, plain, to_ms
from meshwise.series.names import MetricFamily, MetricKind
from meshwise.series.sending import sent

MOST_SAMPLES = 5000
"""Of one request."""
SLICE_MS = 600_000
STALE: float = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""Prometheus's mark that a series has ended (model/value/value.go): without it the last value is taken for
the present one for five more minutes, into the next trial."""
HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
_TYPES = {MetricKind.COUNTER: 1, MetricKind.GAUGE: 2, MetricKind.HISTOGRAM: 3, MetricKind.INFO: 6}
_FIELDS = {
    "WriteRequest": (("timeseries", 1, "TimeSeries", True), ("metadata", 3, "MetricMetadata", True)),
    "TimeSeries": (("labels", 1, "Label", True), ("samples", 2, "Sample", True)),
    "Label": (("name", 1, "string", False), ("value", 2, "string", False)),
    "Sample": (("value", 1, "double", False), ("timestamp", 2, "int64", False)),
    "MetricMetadata": (
        ("type", 1, "int32", False), ("metric_family_name", 2, "string", False), ("help", 4, "string", False),
        ("unit", 5, "string", False),
    ),
}  # fmt: skip


@cache
def write_request_class() -> Any:
    """The protobuf class; `MetricMetadata.type`, an enumeration upstream, is the same varint."""
    field = descriptor_pb2.FieldDescriptorProto
    kinds = {
        "string": field.TYPE_STRING,
        "double": field.TYPE_DOUBLE,
        "int64": field.TYPE_INT64,
        "int32": field.TYPE_INT32,
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="meshwise/remote.proto", package="meshwise.prometheus", syntax="proto3"
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for own, number, kind, repeated in fields:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            entry = message.field.add(name=own, number=number, label=label)
            if kind in kinds:
                entry.type = kinds[kind]
            else:
                entry.type, entry.type_name = field.TYPE_MESSAGE, f".meshwise.prometheus.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("meshwise.prometheus.WriteRequest"))


def compressed(body: bytes) -> bytes:
    """Snappy's block format, which is also that of Parquet."""
    return bytes(pa.Codec("snappy").compress(body, asbytes=True))


def requests_of(lines: Sequence[AnySeries], step_ms: int) -> Iterator[tuple[bytes, int]]:
    """The requests for the lines of one trial, and how many samples each has. Every series ends with a mark
    one step after its last point."""
    pieces = [(sample, *_ended(sample, step_ms)) for line in lines for sample in plain(line)]
    pieces = [piece for piece in pieces if len(piece[1])]
    if not pieces:
        return
    begin = min(int(times[0]) for _, times, _ in pieces)
    end = max(int(times[-1]) for _, times, _ in pieces)
    families = {line.family: None for line in lines}
    request, count = _begun(families), 0
    for start in range(begin, end + 1, SLICE_MS):
        for sample, times, values in pieces:
            first, last = np.searchsorted(times, (start, start + SLICE_MS))
            for at in range(int(first), int(last), MOST_SAMPLES):
                upto = min(at + MOST_SAMPLES, int(last))
                if count and count + upto - at > MOST_SAMPLES:
                    yield compressed(request.SerializeToString()), count
                    request, count = write_request_class()(), 0
                _add(request, sample, times[at:upto].tolist(), values[at:upto].tolist())
                count += upto - at
    if count:
        yield compressed(request.SerializeToString()), count


def _ended(sample: PlainSeries, step_ms: int) -> tuple[Any, Any]:
    times, values = to_ms(sample)
    if not len(times):
        return times, values
    return np.append(times, times[-1] + step_ms), np.append(values, STALE)


def _begun(families: Iterable[MetricFamily]) -> Any:
    request = write_request_class()()
    for family in families:
        request.metadata.add(
            type=_TYPES[family.kind], metric_family_name=family.name, help=family.help, unit=family.unit
        )
    return request


def _add(request: Any, sample: PlainSeries, times: Sequence[int], values: Sequence[float]) -> None:
    series = request.timeseries.add()
    for name, text in sorted((("__name__", sample.name), *sample.labels)):
        series.labels.add(name=name, value=text)
    for t_ms, value in zip(times, values, strict=True):
        series.samples.add(value=value, timestamp=t_ms)


def remote_write(
    batches: Iterable[Sequence[AnySeries]], to: Endpoint, step_ns: int, retries: Retries | None = None
) -> int:
    """Send all; returns the number of samples. Raises MW022 (no answer), MW023 (refused)."""
    step_ms = max(1, step_ns // 1_000_000)
    bodies = (each for batch in batches for each in requests_of(batch, step_ms))
    return sent(bodies, to, HEADERS, retries or Retries())
