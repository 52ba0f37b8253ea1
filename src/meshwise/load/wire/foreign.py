"""What a server speaks instead of what it was asked for, from the first bytes that it sent."""

from __future__ import annotations

_TLS_CONTENT = frozenset({0x14, 0x15, 0x16, 0x17})


def foreign(data: bytes) -> str:
    """`HTTP/1`, `HTTP/2`, `TLS`, another protocol that announces itself, or empty: it cannot be told."""
    if data.startswith((b"HTTP/1.", b"HTTP/0.")):
        return "HTTP/1"
    if len(data) >= 3 and data[0] in _TLS_CONTENT and data[1] == 3:
        return "TLS"
    if len(data) >= 9 and data[3:5] in (b"\x04\0", b"\x04\x01") and data[5:9] == bytes(4):
        return "HTTP/2"
    if data.startswith(b"SSH-"):
        return "SSH"
    return ""
