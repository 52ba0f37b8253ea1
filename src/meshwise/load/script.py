"""A script: requests that differ from each other, each encoded once before the run.

Request k of a run is line k of the script; after the last line it begins again. Everything else (authority,
headers, method) is the spec's and the same for all. Answers are not read: a status tells what became of
a request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from meshwise.core import messages
from meshwise.load.fields import check_path
from meshwise.load.spec import LoadSpec
from meshwise.load.spread import Ordered
from meshwise.load.traced import filling, with_slot
from meshwise.load.wire import grpc, http1, http2_request
from meshwise.load.wire.seam import WireProtocol
from meshwise.load.wire.varied import VariedGrpc, VariedHttp1, VariedHttp2
from meshwise.study.model import Protocol


@dataclass(frozen=True)
class ScriptLine:
    """One request."""

    path: str
    body: str
    """For gRPC the message."""


def write_script(path: Path, lines: Iterable[ScriptLine]) -> None:
    path.write_text("".join(json.dumps([line.path, line.body]) + "\n" for line in lines))


def read_script(path: Path) -> tuple[ScriptLine, ...]:
    """Raises MW303 for a file that is not a script, or an empty one."""
    try:
        lines = tuple(ScriptLine(*map(str, json.loads(text))) for text in path.read_text().splitlines())
    except (OSError, ValueError, TypeError) as error:
        raise messages.BAD_LOAD_OPTION.error(
            what=f"{path} is not a script: {error}", remedy="a JSON array of path and body on each line"
        ) from error
    if not lines:
        raise messages.BAD_LOAD_OPTION.error(what=f"the script {path} is empty", remedy="give it a line")
    return lines


def encode_script(spec: LoadSpec, path: Path) -> tuple[Callable[[], WireProtocol], int]:
    """What makes the protocol of a connection, and the mean size of a request on the wire."""
    lines, scheme = read_script(path), "https" if spec.tls else "http"
    for target in {line.path for line in lines}:
        check_path(target, spec.protocol)
    order: Sequence[int] = range(len(lines))
    headers = [spec.headers] * len(lines)
    if spec.tracing is not None:
        order, lines = Ordered(order, len(lines), spec.tracing.spread), (*lines, *lines)
        headers += [with_slot(spec.headers)] * len(headers)
    bodies = [line.body.encode() for line in lines]
    if spec.protocol is Protocol.HTTP1:
        raw = [
            http1.encode_request(spec.method, line.path, spec.authority, own, body)
            for line, own, body in zip(lines, headers, bodies, strict=True)
        ]
        heads = http1.KnownHeads()
        is_head = spec.method == "HEAD"
        varied = filling(VariedHttp1, spec.tracing)
        protocol = partial(varied, raw, order, heads, is_head_method=is_head)
        return protocol, sum(map(len, raw)) // len(raw)
    if spec.protocol is Protocol.HTTP2:
        calls = [
            http2_request.encode_request(spec.method, scheme, line.path, spec.authority, own, body)
            for line, own, body in zip(lines, headers, bodies, strict=True)
        ]
        return partial(filling(VariedHttp2, spec.tracing), calls, order, spec.streams), _mean_size(calls)
    if spec.protocol is Protocol.GRPC:
        calls = [
            grpc.encode_request(scheme, line.path, spec.authority, own, body)
            for line, own, body in zip(lines, headers, bodies, strict=True)
        ]
        return partial(filling(VariedGrpc, spec.tracing), calls, order, spec.streams), _mean_size(calls)
    raise messages.BAD_LOAD_OPTION.error(what="opaque TCP has no script", remedy="use http1, http2 or grpc")


def _mean_size(calls: Sequence[http2_request.EncodedRequest]) -> int:
    return sum(len(bytes(4).join(call.pieces)) for call in calls) // len(calls)
