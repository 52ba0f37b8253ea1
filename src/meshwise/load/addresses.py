"""The addresses of a name: in which order they are tried, and which answer.

RFC 8305: families in turn, beginning with the one that the system prefers (section 4; the system's own order
is RFC 6724's); the next attempt begins when the one before has failed, or after 250 ms (section 5). It is
done once before a run, with connections that are closed again, and only where there is a choice: the
connections of the run then have one address each that is known to answer, and try the others when it no
longer does.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import cast

ATTEMPT_DELAY_S = 0.25
SPREAD_PATIENCE_S = 1.0
"""Once one has answered, for the others."""


def in_turn(addresses: Sequence[str]) -> tuple[str, ...]:
    """The system's order with families interleaved; each address once."""
    found = list(dict.fromkeys(addresses))
    first = [each for each in found if _family(each) == _family(found[0])] if found else []
    others = [each for each in found if each not in first]
    return tuple(_alternating(first, others))


def _alternating(first: list[str], others: list[str]) -> Iterator[str]:
    for number in range(max(len(first), len(others))):
        yield from first[number : number + 1]
        yield from others[number : number + 1]


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def tcp_socket(address: str, port: int) -> socket.socket:
    """A socket whose connection attempt is under way. Raises OSError when it fails at once."""
    sock = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host, _, zone = address.partition("%")
        sock.connect((host, port, 0, socket.if_nametoindex(zone)) if zone else (host, port))
    except BlockingIOError:
        return sock
    except OSError:
        sock.close()
        raise
    return sock


def answering(
    addresses: Sequence[str], port: int, *, every: bool, patience_s: float
) -> tuple[list[str], dict[str, str]]:
    """(those that accept a connection, why of the others that were tried). `every`: all that answer, else the
    first that does."""
    waiting = list(addresses)
    answered: list[str] = []
    failed: dict[str, str] = {}
    deadline_s = time.monotonic() + patience_s
    next_s = 0.0
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        while (waiting or selector.get_map()) and (every or not answered):
            now_s = time.monotonic()
            if now_s >= deadline_s:
                break
            if waiting and (every or now_s >= next_s or not selector.get_map()):
                address, next_s = waiting.pop(0), now_s + ATTEMPT_DELAY_S
                try:
                    sock = stack.enter_context(tcp_socket(address, port))
                except OSError as error:
                    failed[address] = error.strerror or str(error)
                else:
                    selector.register(sock, selectors.EVENT_WRITE, address)
                continue
            wake_s = min(deadline_s, next_s) if waiting else deadline_s
            for key, _ in selector.select(max(0.0, wake_s - now_s)):
                selector.unregister(key.fileobj)
                number = cast(socket.socket, key.fileobj).getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if number:
                    failed[key.data] = os.strerror(number)
                    continue
                if not answered:
                    deadline_s = min(deadline_s, time.monotonic() + SPREAD_PATIENCE_S)
                answered.append(key.data)
    failed |= {each: "no answer in time" for each in addresses if each not in failed and each not in answered}
    return sorted(answered, key=list(addresses).index), failed
