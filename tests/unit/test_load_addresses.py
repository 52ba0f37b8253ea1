"""The addresses of a name: their order, and which answer."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest

from meshwise.load.addresses import answering, in_turn, tcp_socket


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], ()),
        (["10.0.0.1"], ("10.0.0.1",)),
        (["fd::1", "fd::2", "10.0.0.1", "10.0.0.2"], ("fd::1", "10.0.0.1", "fd::2", "10.0.0.2")),
        (["10.0.0.1", "10.0.0.2", "fd::1"], ("10.0.0.1", "fd::1", "10.0.0.2")),
        (["fd::1", "10.0.0.1", "fd::1"], ("fd::1", "10.0.0.1")),
    ],
)
def test_families_take_turns_beginning_with_the_system_s_first(
    found: list[str], expected: tuple[str, ...]
) -> None:
    assert in_turn(found) == expected


def test_all_are_tried_until_one_answers() -> None:
    with socket.create_server(("127.0.0.3", 0)) as server:
        port = server.getsockname()[1]
        tried = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
        found, failed = answering(tried, port, every=False, patience_s=5)
        assert found == ["127.0.0.3"]
        assert failed["127.0.0.1"] == "Connection refused"
        found, failed = answering(tried, port, every=True, patience_s=5)
        assert (found, sorted(failed)) == (["127.0.0.3"], ["127.0.0.1", "127.0.0.2", "127.0.0.4"])
    found, failed = answering(tried, port, every=False, patience_s=5)
    assert (found, len(failed)) == ([], 4)


def test_the_next_attempt_does_not_wait_for_one_that_says_nothing() -> None:
    """A listener whose queue is full answers nothing, as an address behind a filter that drops."""
    with (
        socket.create_server(("127.0.0.5", 0), backlog=0) as mute,
        socket.create_server(("127.0.0.6", mute.getsockname()[1])),
        socket.create_connection(mute.getsockname()),
    ):
        port = mute.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.5", port))
        found, failed = answering(("127.0.0.5", "127.0.0.6"), port, every=False, patience_s=20)
        for filler in fillers:
            filler.close()
    assert found == ["127.0.0.6"]
    assert failed["127.0.0.5"] == "no answer in time"


def test_those_that_answer_keep_their_order() -> None:
    with socket.create_server(("127.0.0.2", 0)) as one:
        port = one.getsockname()[1]
        with socket.create_server(("127.0.0.1", port)):
            found, failed = answering(("127.0.0.2", "127.0.0.1"), port, every=True, patience_s=5)
    assert (found, failed) == (["127.0.0.2", "127.0.0.1"], {})


def test_a_link_local_address_is_reached_through_its_interface() -> None:
    fields = (line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines())
    local = [(each[0], each[5]) for each in fields if each[3] == "20"]
    if not local:
        pytest.skip("no interface here has a link-local IPv6 address; `ip link set IF up` makes one")
    digits, interface = local[0]
    address = str(ipaddress.IPv6Address(int(digits, 16)))
    with socket.socket(socket.AF_INET6) as server:
        server.bind((address, 0, 0, socket.if_nametoindex(interface)))
        server.listen()
        port = server.getsockname()[1]
        assert answering([f"{address}%{interface}"], port, every=False, patience_s=5)[0]
        with pytest.raises(OSError, match="Invalid argument"):
            tcp_socket(address, port)
