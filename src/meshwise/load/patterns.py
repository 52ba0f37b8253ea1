"""What may be asked of connections, payloads and streams together. Pure."""

from __future__ import annotations

from meshwise.load.spec import LoadSpec
from meshwise.study.load.payload import largest_bytes
from meshwise.study.model import Protocol
from meshwise.study.protocol import Streaming

MAX_STREAM_BYTES = 64 * 2**20
"""That one gRPC stream sends."""
MAX_MESSAGES = 100_000
MAX_CHURN_PER_S = 100_000.0


def wrong_patterns(spec: LoadSpec) -> list[tuple[bool, str]]:
    """(is it so?, what is wrong), for `instrument.check_spec`."""
    streaming = spec.streaming is not Streaming.NONE
    sends_many = spec.streaming in (Streaming.CLIENT, Streaming.BIDI)
    largest = largest_bytes(spec.request_payload)
    return [
        (spec.requests_per_connection < 0 or spec.churn_per_s < 0, "nothing can be replaced backwards"),
        (
            spec.requests_per_connection > 0 and spec.churn_per_s > 0,
            "connections are replaced after a number of requests or at a rate, not both",
        ),
        (spec.churn_per_s > MAX_CHURN_PER_S, f"churn must be at most {MAX_CHURN_PER_S:g}/s"),
        (spec.resume_tls and spec.tls is None, "without TLS there is no session to resume"),
        (spec.grpc_message is not None and bool(spec.request_sizes), "a given message has one size"),
        (streaming and spec.protocol is not Protocol.GRPC, f"{spec.protocol} has no streams of messages"),
        (not streaming and spec.messages != 1, "more than one message needs gRPC streaming"),
        (
            not (0 if spec.streaming is Streaming.SERVER else 1) <= spec.messages <= MAX_MESSAGES,
            f"messages must be 1 to {MAX_MESSAGES} per stream",
        ),
        (
            sends_many and spec.messages * (largest + 16) > MAX_STREAM_BYTES,
            f"a stream may send {MAX_STREAM_BYTES >> 20} MiB in all",
        ),
    ]
