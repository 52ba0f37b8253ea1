"""What is read off a wire: TCP payload by direction of each connection. Pure.

RFC 791 (IPv4 header), RFC 9293 section 3.1 (TCP header). A frame begins with its IPv4 header, as a packet
socket of kind SOCK_DGRAM gives it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

_TCP = 6
_SYN = 0x02
_HEADER_BYTES = 20


@dataclass(frozen=True)
class Flow:
    """One direction of one connection."""

    source: tuple[str, int]
    target: tuple[str, int]
    payload: bytes
    """In the order of its sequence numbers; what was sent again stands once."""


@dataclass(frozen=True)
class Overheard:
    flows: tuple[Flow, ...]
    packets: int
    lost: int = 0
    """Packets that the listener was too slow for: what is not found may have been in them."""

    @property
    def payload_bytes(self) -> int:
        return sum(len(flow.payload) for flow in self.flows)

    def found(self, marker: bytes) -> tuple[Flow, ...]:
        """The flows in whose plaintext these bytes stand."""
        return tuple(flow for flow in self.flows if marker in flow.payload)


def flows_of(frames: Iterable[bytes]) -> tuple[Flow, ...]:
    """Whatever is no whole IPv4 packet with TCP in it is passed over."""
    pieces: dict[tuple[str, int, str, int], dict[int, bytes]] = {}
    for frame in frames:
        if (found := _segment(frame)) is not None:
            key, sequence, payload = found
            known = pieces.setdefault(key, {})
            if len(payload) > len(known.get(sequence, b"")):
                known[sequence] = payload
    return tuple(
        Flow((key[0], key[1]), (key[2], key[3]), _joined(parts)) for key, parts in pieces.items() if parts
    )


def _segment(frame: bytes) -> tuple[tuple[str, int, str, int], int, bytes] | None:
    if len(frame) < _HEADER_BYTES or frame[0] >> 4 != 4 or frame[9] != _TCP:
        return None
    start = (frame[0] & 0x0F) * 4
    end = min(struct.unpack_from(">H", frame, 2)[0] or len(frame), len(frame))
    if end < start + _HEADER_BYTES:
        return None
    source_port, target_port, sequence = struct.unpack_from(">HHI", frame, start)
    payload = frame[start + (frame[start + 12] >> 4) * 4 : end]
    if frame[start + 13] & _SYN or not payload:
        return None
    source, target = (".".join(map(str, frame[at : at + 4])) for at in (12, 16))
    return (source, source_port, target, target_port), sequence, payload


def _joined(parts: dict[int, bytes]) -> bytes:
    """Pieces behind one another; what overlaps stands once. Sequence numbers wrap at 2^32, so order counts
    from the first piece that was seen."""
    first = next(iter(parts))
    joined, at = b"", None
    for sequence, payload in sorted(parts.items(), key=lambda item: _after(item[0], first)):
        place = _after(sequence, first)
        known = 0 if at is None else max(0, at - place)
        joined += payload[known:]
        at = place + len(payload) if at is None else max(at, place + len(payload))
    return joined


def _after(sequence: int, first: int) -> int:
    """How far behind `first`; before it, it is negative."""
    return (sequence - first + (1 << 31)) % (1 << 32) - (1 << 31)
