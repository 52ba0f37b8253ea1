"""Answers of HTTP/2 and unary gRPC as bytes that wait only for their stream's number."""

from __future__ import annotations

from dataclasses import dataclass

from meshwise.load.wire import frames
from meshwise.load.wire.blocks import encode_block
from meshwise.service import behaviour, grpc_framing
from meshwise.service.behaviour import PlannedAnswer, body_of


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """An answer ready to send: `parts` joined by the stream's number; or in pieces, for the windows."""

    parts: tuple[bytes, ...]
    block: bytes
    body: bytes
    trailers: bytes


def answer_to(
    decision: PlannedAnswer, *, is_call: bool, head_only: bool = False, date: str = ""
) -> EncodedAnswer:
    """The answer as HTTP, or as gRPC when the request is a call."""
    reason = decision.reason
    fields = [("date", date)] if date else []
    fields += [(behaviour.REASON_HEADER, _printable(reason))] if reason else []
    if is_call:
        return grpc_answer(grpc_framing.status_of(decision.status), reason, decision.body_bytes, fields)
    body = b"" if head_only else body_of(decision.body_bytes)
    block = encode_block(
        [(":status", str(decision.status)), ("content-length", str(decision.body_bytes)), *fields]
    )
    return _cut(block, body, b"")


def grpc_answer(status: int, reason: str, body_bytes: int, fields: list[tuple[str, str]]) -> EncodedAnswer:
    first = [(":status", "200"), ("content-type", grpc_framing.CONTENT_TYPE)]
    if status == grpc_framing.OK:
        body = grpc_framing.frame_payload(body_of(body_bytes))
        return _cut(encode_block([*first, *fields]), body, encode_block([("grpc-status", "0")]))
    trailers = [("grpc-status", str(status)), ("grpc-message", grpc_framing.message_text(reason))]
    return _cut(encode_block([*first, *trailers, *fields]), b"", b"")


def _printable(text: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:200].strip()


def _cut(block: bytes, body: bytes, trailers: bytes) -> EncodedAnswer:
    """`parts` are made for a body that fits one frame: then only the stream's number varies."""
    joined: list[bytes] = [b""]

    def add(kind: int, flags: int, payload: bytes) -> None:
        head = frames.head(len(payload), kind, flags, 0)
        joined[-1] += head[:5]
        joined.append(payload)

    add(frames.HEADERS, frames.END_HEADERS | (0 if body or trailers else frames.END_STREAM), block)
    if body and len(body) <= frames.DEFAULT_FRAME_BYTES:
        add(frames.DATA, 0 if trailers else frames.END_STREAM, body)
    if trailers:
        add(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, trailers)
    return EncodedAnswer(tuple(joined), block, body, trailers)
