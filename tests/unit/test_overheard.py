"""What is read off a wire: packets in any order, twice, cut short, and what is none."""

from __future__ import annotations

import random
import socket
import struct

import pytest

from meshwise.mesh.overheard import Flow, Overheard, flows_of

CLIENT, SERVER = ("10.244.1.10", 40000), ("10.244.1.11", 8080)


def packet(
    sequence: int, payload: bytes, source: tuple[str, int] = CLIENT, target: tuple[str, int] = SERVER,
    flags: int = 0x18, options: bytes = b"",
) -> bytes:  # fmt: skip
    offset = (5 + len(options) // 4) << 4
    tcp = struct.pack(">HHIIBBHHH", source[1], target[1], sequence % 2**32, 0, offset, flags, 65535, 0, 0)
    size = 20 + len(tcp) + len(options) + len(payload)
    ip = struct.pack(">BBHHHBBH", 0x45, 0, size, 1, 0, 64, 6, 0)
    return ip + socket.inet_aton(source[0]) + socket.inet_aton(target[0]) + tcp + options + payload


@pytest.mark.parametrize("first", [1000, 2**32 - 7])
def test_pieces_are_joined_in_the_order_of_their_numbers(first: int) -> None:
    text = b"GET / HTTP/1.1\r\n\r\n"
    pieces = [packet(first + at, text[at : at + 5], options=bytes(12)) for at in range(0, len(text), 5)]
    again = [*pieces, *pieces, packet(first, text[:9])]
    for seed in range(20):
        random.Random(seed).shuffle(again)
        assert flows_of(again) == (Flow(CLIENT, SERVER, text),)


def test_directions_and_connections_are_apart() -> None:
    flows = flows_of(
        [
            packet(1, b"question"),
            packet(9, b"answer", SERVER, CLIENT),
            packet(1, b"other", ("10.244.1.10", 40001)),
        ]
    )
    assert [flow.payload for flow in flows] == [b"question", b"answer", b"other"]
    heard = Overheard(flows, 3)
    assert heard.payload_bytes == 19
    assert heard.found(b"swer") == (Flow(SERVER, CLIENT, b"answer"),)
    assert heard.found(b"nothing") == ()


def test_what_carries_no_payload_of_tcp_is_passed_over() -> None:
    whole = packet(1, b"x")
    others = [
        b"", whole[:30], packet(1, b""), packet(1, b"fast open", flags=0x02), b"\x60" + whole[1:],
        whole[:9] + b"\x11" + whole[10:],
    ]  # fmt: skip
    assert flows_of(others) == ()
    assert flows_of([whole + bytes(6)]) == (Flow(CLIENT, SERVER, b"x"),), "padding of a short frame"
