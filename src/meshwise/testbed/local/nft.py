"""The nat rules of a pod: decided as readable values, then encoded for nf_tables, without iptables or nft.

Three layers, each a function: `capture_chains` (what the mesh's own init container would arrange), `encode`
(values to one netlink batch), `install` (send it, read every acknowledgement). The kernel applies a batch
whole or not at all.

Istio's rules: pkg of tools/istio-iptables (capture/run.go): chains ISTIO_INBOUND and ISTIO_OUTPUT by uid and
gid 1337. Linkerd's: linkerd2-proxy-init pkg/iptables/iptables.go: by uid 2102. What they do with user chains
and RETURN is here one base chain and `accept`, which decides the same for every packet.

With one uid in the namespace the owner of a socket says nothing. Then only the range of service addresses is
captured: applications dial these, sidecars dial pods (see `mesh.seam.SERVICE_RANGE`).

Source: linux/netfilter/nf_tables.h. All integers in attributes are big-endian.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from meshwise.core import messages
from meshwise.core.patience import USUAL
from meshwise.mesh.seam import SERVICE_RANGE, Capture

TABLE = "meshwise"


class PacketField(StrEnum):
    """What a rule may look at, in the words of nft(8)."""

    OUT_INTERFACE = "meta oifname"
    PROTOCOL = "meta l4proto"
    UID = "meta skuid"
    GID = "meta skgid"
    SOURCE = "ip saddr"
    DESTINATION = "ip daddr"
    PORT = "tcp dport"


@dataclass(frozen=True)
class PacketMatch:
    field: PacketField
    value: str | int
    equal: bool = True

    def __str__(self) -> str:
        return f"{self.field} {'' if self.equal else '!= '}{self.value}"


@dataclass(frozen=True)
class Rule:
    """All matches hold -> redirect to a port of this pod, or (None) leave the packet alone."""

    matches: tuple[PacketMatch, ...]
    redirect: int | None = None

    def __str__(self) -> str:
        verdict = "accept" if self.redirect is None else f"redirect to :{self.redirect}"
        return " ".join([*map(str, self.matches), verdict])


@dataclass(frozen=True)
class Chain:
    hook: str
    """`prerouting` or `output`."""
    rules: tuple[Rule, ...]

    def __str__(self) -> str:
        lines = "".join(f"\n    {rule}" for rule in self.rules)
        return f"chain {self.hook} {{ type nat hook {self.hook} priority dstnat;{lines}\n}}"


# --- decided ---------------------------------------------------------------------------------------

_TCP = PacketMatch(PacketField.PROTOCOL, "tcp")
_LOOPBACK = PacketMatch(PacketField.OUT_INTERFACE, "lo")


def capture_chains(capture: Capture, *, privileged: bool) -> tuple[Chain, Chain]:
    """The rules of one pod; `privileged`: the proxy runs as a uid of its own."""
    inbound = [
        Rule((_TCP, PacketMatch(PacketField.PORT, port)), to) for port, to in capture.inbound_redirects
    ]
    inbound += [Rule((_TCP, PacketMatch(PacketField.PORT, port))) for port in capture.inbound_exempt_ports]
    inbound.append(Rule((_TCP,), capture.inbound_port))
    return (
        Chain("prerouting", tuple(inbound)),
        Chain("output", tuple(_by_owner(capture) if privileged else _by_range(capture))),
    )


def _by_range(capture: Capture) -> Iterator[Rule]:
    yield from _exempt_outbound_ports(capture)
    yield Rule((_TCP, PacketMatch(PacketField.DESTINATION, SERVICE_RANGE)), capture.outbound_port)


def _by_owner(capture: Capture) -> Iterator[Rule]:
    owners = [PacketMatch(PacketField.UID, capture.proxy_uid)]
    if capture.proxy_gid is not None:
        owners.append(PacketMatch(PacketField.GID, capture.proxy_gid))
    if capture.inbound_source is None:
        yield from _linkerd_output(capture, owners)
    else:
        yield from _istio_output(capture, owners, capture.inbound_source)
    yield Rule((_TCP,), capture.outbound_port)


def _exempt_outbound_ports(capture: Capture) -> Iterator[Rule]:
    return (Rule((_TCP, PacketMatch(PacketField.PORT, port))) for port in capture.outbound_exempt_ports)


def _linkerd_output(capture: Capture, owners: list[PacketMatch]) -> Iterator[Rule]:
    for owner in owners:
        yield Rule((owner,))
    yield Rule((_LOOPBACK,))
    yield from _exempt_outbound_ports(capture)


def _istio_output(capture: Capture, owners: list[PacketMatch], inbound_source: str) -> Iterator[Rule]:
    not_localhost = PacketMatch(PacketField.DESTINATION, "127.0.0.1", equal=False)
    tunnel = (
        ()
        if capture.tunnel_port is None
        else (PacketMatch(PacketField.PORT, capture.tunnel_port, equal=False),)
    )
    yield from _exempt_outbound_ports(capture)
    yield Rule((_LOOPBACK, PacketMatch(PacketField.SOURCE, inbound_source)))
    for owner in owners:
        # The application called itself by its service address: as any caller it must pass the inbound side.
        yield Rule((_LOOPBACK, not_localhost, _TCP, *tunnel, owner), capture.inbound_port)
        yield Rule((_LOOPBACK, PacketMatch(owner.field, owner.value, equal=False)))
        yield Rule((owner,))
    yield Rule((PacketMatch(PacketField.DESTINATION, "127.0.0.1"),))


# --- encoded ---------------------------------------------------------------------------------------

_NEWTABLE, _NEWCHAIN, _NEWRULE = 0, 3, 6
_BATCH_BEGIN, _BATCH_END, _SUBSYSTEM = 16, 17, 10
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_HOOKS = {"prerouting": 0, "output": 3}
_PRIORITY_DSTNAT = -100
_REGISTER = 1
_EQUAL, _UNEQUAL = 0, 1
_META_KEYS = {
    PacketField.OUT_INTERFACE: 7,
    PacketField.UID: 10,
    PacketField.GID: 11,
    PacketField.PROTOCOL: 16,
}
_PAYLOAD = {PacketField.SOURCE: (1, 12, 4), PacketField.DESTINATION: (1, 16, 4), PacketField.PORT: (2, 2, 2)}
"""(base: 1 network header, 2 transport header; offset; length) of an IPv4 packet's fields."""


@dataclass(frozen=True)
class Command:
    """One message of a batch and the words for it, should the kernel refuse it."""

    says: str
    kind: int
    flags: int
    attributes: bytes


def encode(chains: Sequence[Chain]) -> tuple[Command, ...]:
    commands = [Command(f"add table ip {TABLE}", _NEWTABLE, _CREATE, _attribute(1, _text(TABLE)))]
    for chain in chains:
        hook = _attribute(1, _u32(_HOOKS[chain.hook])) + _attribute(2, struct.pack(">i", _PRIORITY_DSTNAT))
        body = _attribute(1, _text(TABLE)) + _attribute(3, _text(chain.hook)) + _nest(4, hook)
        body += _attribute(7, _text("nat"))
        commands.append(Command(f"add nat chain {chain.hook}", _NEWCHAIN, _CREATE, body))
        for rule in chain.rules:
            body = _attribute(1, _text(TABLE)) + _attribute(2, _text(chain.hook))
            body += _nest(4, b"".join(_expressions(rule)))
            commands.append(Command(f"{chain.hook}: {rule}", _NEWRULE, _CREATE | _APPEND, body))
    return tuple(commands)


def _expressions(rule: Rule) -> Iterator[bytes]:
    for match in rule.matches:
        yield from _match(match)
    if rule.redirect is None:
        verdict = _nest(2, _attribute(1, _u32(1)))  # NF_ACCEPT into the verdict register, 0
        yield _expression("immediate", _attribute(1, _u32(0)) + _nest(2, verdict))
    else:
        port = _nest(2, _attribute(1, struct.pack(">H", rule.redirect)))
        yield _expression("immediate", _attribute(1, _u32(_REGISTER)) + port)
        yield _expression("redir", _attribute(1, _u32(_REGISTER)))


def _match(match: PacketMatch) -> Iterator[bytes]:
    value, mask = _operand(match)
    if match.field in _META_KEYS:
        yield _expression(
            "meta", _attribute(1, _u32(_REGISTER)) + _attribute(2, _u32(_META_KEYS[match.field]))
        )
    else:
        numbers = (_REGISTER, *_PAYLOAD[match.field])
        yield _expression("payload", b"".join(_attribute(i, _u32(n)) for i, n in enumerate(numbers, start=1)))
    if mask is not None:
        yield _expression(
            "bitwise",
            b"".join(_attribute(i, _u32(n)) for i, n in ((1, _REGISTER), (2, _REGISTER), (3, len(mask))))
            + _nest(4, _attribute(1, mask))
            + _nest(5, _attribute(1, bytes(len(mask)))),
        )
    operation = _EQUAL if match.equal else _UNEQUAL
    compared = (
        _attribute(1, _u32(_REGISTER)) + _attribute(2, _u32(operation)) + _nest(3, _attribute(1, value))
    )
    yield _expression("cmp", compared)


def _operand(match: PacketMatch) -> tuple[bytes, bytes | None]:
    """The bytes to compare with, and the mask to apply before, if there is one."""
    match match.field:
        case PacketField.OUT_INTERFACE:
            return str(match.value).encode().ljust(16, b"\0"), None
        case PacketField.PROTOCOL:
            return bytes([socket.IPPROTO_TCP]), None
        case PacketField.UID | PacketField.GID:
            return struct.pack("=I", int(match.value)), None  # meta loads these in host order
        case PacketField.PORT:
            return struct.pack(">H", int(match.value)), None
        case PacketField.SOURCE | PacketField.DESTINATION:
            network = ipaddress.IPv4Network(str(match.value))
            mask = None if network.prefixlen == 32 else network.netmask.packed
            return network.network_address.packed, mask


def _expression(name: str, data: bytes) -> bytes:
    return _nest(1, _attribute(1, _text(name)) + _nest(2, data))


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _nest(kind: int, data: bytes) -> bytes:
    return _attribute(kind | 0x8000, data)


def _u32(number: int) -> bytes:
    return struct.pack(">I", number)


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


# --- sent ------------------------------------------------------------------------------------------

_NETLINK_NETFILTER = 12
_NLMSG_ERROR = 2


def open_netlink(answer_s: float = USUAL.kernel_s) -> socket.socket:
    """A netfilter socket of the calling thread's network namespace; an answer comes within `answer_s`."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    netlink.bind((0, 0))
    netlink.settimeout(answer_s)
    return netlink


def install(chains: Sequence[Chain], netlink: socket.socket) -> None:
    """Apply the chains in the namespace of `netlink`, whole or not at all. Raises MW502."""
    commands = encode(chains)
    batch = [_message(_BATCH_BEGIN, _REQUEST, 0, socket.AF_UNSPEC, _SUBSYSTEM, b"")]
    for number, command in enumerate(commands, start=1):
        kind = _SUBSYSTEM << 8 | command.kind
        flags = _REQUEST | _ACK | command.flags
        batch.append(_message(kind, flags, number, socket.AF_INET, 0, command.attributes))
    batch.append(_message(_BATCH_END, _REQUEST, len(commands) + 1, socket.AF_UNSPEC, _SUBSYSTEM, b""))
    netlink.send(b"".join(batch))
    waiting = set(range(1, len(commands) + 1))
    while waiting:
        for number, code in _acknowledgements(netlink):
            if code:
                what = commands[number - 1].says if 0 < number <= len(commands) else "batch"
                raise messages.RULES_REFUSED.error(what=what, reason=os.strerror(code))
            waiting.discard(number)


def _acknowledgements(netlink: socket.socket) -> Iterator[tuple[int, int]]:
    """(sequence number, errno) of each answer in the next datagram."""
    try:
        data = netlink.recv(1 << 16)
    except TimeoutError as error:
        raise messages.RULES_REFUSED.error(
            what="batch", reason=f"no answer from the kernel in {netlink.gettimeout():g} s"
        ) from error
    while data:
        length, kind, _flags, number, _port = struct.unpack_from("=IHHII", data)
        if kind == _NLMSG_ERROR:
            yield number, -struct.unpack_from("=i", data, 16)[0]
        data = data[(length + 3) & ~3 :]


def _message(kind: int, flags: int, number: int, family: int, resource: int, attributes: bytes) -> bytes:
    body = struct.pack("=BBH", family, 0, socket.htons(resource)) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, flags, number, 0) + body
