"""The nat rules: golden texts against the meshes' own init containers, and messages that are well formed."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from tests.support.inside_world import ISTIO, LINKERD

from meshwise.testbed.local.nft import Chain, PacketField, PacketMatch, Rule, capture_chains, encode

TCP = "meta l4proto tcp"
ISTIO_OUTPUT = f"""\
chain output {{ type nat hook output priority dstnat;
    meta oifname lo ip saddr 127.0.0.6 accept
    meta oifname lo ip daddr != 127.0.0.1 {TCP} tcp dport != 15008 meta skuid 1337 redirect to :15006
    meta oifname lo meta skuid != 1337 accept
    meta skuid 1337 accept
    meta oifname lo ip daddr != 127.0.0.1 {TCP} tcp dport != 15008 meta skgid 1337 redirect to :15006
    meta oifname lo meta skgid != 1337 accept
    meta skgid 1337 accept
    ip daddr 127.0.0.1 accept
    meta l4proto tcp redirect to :15001
}}"""
ISTIO_PREROUTING = """\
chain prerouting { type nat hook prerouting priority dstnat;
    meta l4proto tcp tcp dport 15008 accept
    meta l4proto tcp tcp dport 15020 accept
    meta l4proto tcp tcp dport 15021 accept
    meta l4proto tcp tcp dport 15090 accept
    meta l4proto tcp redirect to :15006
}"""
LINKERD_OUTPUT = """\
chain output { type nat hook output priority dstnat;
    meta skuid 2102 accept
    meta oifname lo accept
    meta l4proto tcp tcp dport 4567 accept
    meta l4proto tcp tcp dport 4568 accept
    meta l4proto tcp redirect to :4140
}"""
ONE_UID_OUTPUT = """\
chain output { type nat hook output priority dstnat;
    meta l4proto tcp ip daddr 10.96.0.0/16 redirect to :15001
}"""


def test_istio_by_owner() -> None:
    assert [str(chain) for chain in capture_chains(ISTIO, privileged=True)] == [
        ISTIO_PREROUTING,
        ISTIO_OUTPUT,
    ]


def test_linkerd_by_owner() -> None:
    assert str(capture_chains(LINKERD, privileged=True)[1]) == LINKERD_OUTPUT


def test_a_single_uid_captures_service_addresses_only() -> None:
    inbound, outbound = capture_chains(ISTIO, privileged=False)
    assert str(outbound) == ONE_UID_OUTPUT
    assert str(inbound) == ISTIO_PREROUTING


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The netlink attributes in `data`; fails when lengths do not add up to its end."""
    while data:
        length, kind = struct.unpack_from("=HH", data)
        assert 4 <= length <= len(data)
        yield kind & 0x7FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def expressions(rule: Rule) -> list[tuple[str, dict[int, bytes]]]:
    command = encode([Chain("output", (rule,))])[-1]
    fields = dict(attributes(command.attributes))
    assert (fields[1], fields[2]) == (b"meshwise\0", b"output\0")
    found = []
    for _, element in attributes(fields[4]):
        parts = dict(attributes(element))
        found.append((parts[1].rstrip(b"\0").decode(), dict(attributes(parts[2]))))
    return found


def test_a_redirection_loads_the_port_and_uses_it() -> None:
    [(immediate, loaded), (redir, used)] = expressions(Rule((), 15001))
    assert (immediate, redir) == ("immediate", "redir")
    assert dict(attributes(loaded[2]))[1] == (15001).to_bytes(2, "big")
    assert used[1] == loaded[1]


def test_a_network_is_masked_before_it_is_compared() -> None:
    found = expressions(Rule((PacketMatch(PacketField.DESTINATION, "10.96.0.0/16"),), 1))
    assert [name for name, _ in found] == ["payload", "bitwise", "cmp", "immediate", "redir"]
    assert dict(attributes(found[1][1][4]))[1] == bytes([255, 255, 0, 0])
    assert dict(attributes(found[2][1][3]))[1] == bytes([10, 96, 0, 0])


@pytest.mark.parametrize(("equal", "operation"), [(True, 0), (False, 1)])
def test_a_uid_is_compared_in_host_order(equal: bool, operation: int) -> None:
    (_, loaded), (_, compared), _ = expressions(Rule((PacketMatch(PacketField.UID, 1337, equal=equal),)))
    assert int.from_bytes(loaded[2], "big") == 10
    assert int.from_bytes(compared[2], "big") == operation
    assert dict(attributes(compared[3]))[1] == struct.pack("=I", 1337)


def test_every_command_can_be_said_in_words() -> None:
    says = [command.says for command in encode(capture_chains(LINKERD, privileged=True))]
    assert says[:3] == [
        "add table ip meshwise",
        "add nat chain prerouting",
        "prerouting: meta l4proto tcp tcp dport 4190 accept",
    ]
