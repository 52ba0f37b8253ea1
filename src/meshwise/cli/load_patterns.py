"""Options of `meshwise load` for connections, payloads and streams: from what was typed to the spec's
values."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from meshwise.cli.load_options import of_option, refusal
from meshwise.core.units import parse_rate_rps, parse_size_bytes
from meshwise.load.payloads import RESPONSE_SLOT
from meshwise.load.spec import LoadSpec
from meshwise.service.plan import HEADER as PLAN_HEADER
from meshwise.study.load.payload import Payload, is_distribution, parse_payload
from meshwise.study.model import Protocol
from meshwise.study.protocol import Streaming

RequestBytesOption = Annotated[
    str,
    typer.Option(
        help="Size of the body (grpc: of a message's payload): 1KiB, 512, or drawn: 'lognormal(1KiB, 1.5)'.",
        metavar="SIZES",
    ),
]
ResponseBytesOption = Annotated[
    str,
    typer.Option(
        help="Size to ask for, likewise: tcp by its framing; else put where the path or a header says "
        "{response_bytes}, or asked of meshwise's own service by x-plan.",
        metavar="SIZES",
    ),
]
RequestsPerConnectionOption = Annotated[
    int | None,
    typer.Option(help="Open connections when requests need them, close each after so many."),
]
ChurnOption = Annotated[
    str | None, typer.Option(help="Replace so many of the kept connections, like 10/s.", metavar="RATE")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume-tls/--fresh-tls", help="Offer an earlier TLS session to new connections.")
]
SpreadOption = Annotated[
    bool,
    typer.Option(
        "--spread/--one-address", help="Over all addresses of the name that answer, or to the first."
    ),
]
StreamingOption = Annotated[
    Streaming, typer.Option(help="gRPC: which side sends many messages; a stream is one request.")
]
MessagesOption = Annotated[
    int | None, typer.Option("--messages", help="Per stream (default 10; 0 with server: as many as come).")
]

DEFAULT_MESSAGES = 10


def parse_sizes(text: str) -> int | Payload:
    """Raises MW101, MW105."""
    if is_distribution(text):
        return parse_payload(text)
    return parse_size_bytes(f"{text}B" if text.isdigit() else text)


def patterned(
    spec: LoadSpec,
    *,
    request: int | Payload,
    response: int | Payload,
    requests_per_connection: int | None,
    churn: str | None,
    resume_tls: bool,
    streaming: Streaming,
    messages_per_stream: int | None,
) -> LoadSpec:
    """The spec with these options. Raises MW303 for what contradicts itself."""
    if requests_per_connection is not None and requests_per_connection < 1:
        raise refusal("--requests-per-connection must be at least 1", "leave it out to keep connections")
    if messages_per_stream is not None and streaming is Streaming.NONE:
        raise refusal("--messages without --streaming", "add --streaming client, server or bidi")
    if messages_per_stream is None:
        messages_per_stream = 1 if streaming is Streaming.NONE else DEFAULT_MESSAGES
    patterned_spec = replace(
        spec,
        body_bytes=request if isinstance(request, int) else 0,
        request_sizes="" if isinstance(request, int) else str(request),
        response_bytes=response if isinstance(response, int) else 0,
        response_sizes="" if isinstance(response, int) else str(response),
        requests_per_connection=requests_per_connection or 0,
        churn_per_s=of_option("--churn", parse_rate_rps, churn) if churn else 0.0,
        resume_tls=resume_tls,
        streaming=streaming,
        messages=messages_per_stream,
    )
    return _asking(patterned_spec) if response != 0 else patterned_spec


def _asking(spec: LoadSpec) -> LoadSpec:
    """With the header that asks meshwise's service for the size, unless the user says where it goes."""
    said = RESPONSE_SLOT in spec.path or any(RESPONSE_SLOT in value for _, value in spec.headers)
    if spec.protocol is Protocol.TCP or said:
        return spec
    if any(name.lower() == PLAN_HEADER for name, _ in spec.headers):
        what = f"--response-bytes beside a header {PLAN_HEADER}"
        raise refusal(what, f"write {RESPONSE_SLOT} in the header")
    down = spec.streaming is Streaming.SERVER and spec.messages > 0
    plan = f"bytes={RESPONSE_SLOT}" + (f";messages={spec.messages}" if down else "")
    return replace(spec, headers=(*spec.headers, (PLAN_HEADER, plan)))
