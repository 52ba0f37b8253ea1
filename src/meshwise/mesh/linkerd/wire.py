"""Small values as Linkerd's messages have them. Pure."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any

from google.protobuf.duration_pb2 import Duration

from meshwise.mesh.linkerd.proto import inbound_pb2, meta_pb2, net_pb2

EVERY_NETWORK = ("0.0.0.0/0", "::/0")


def ip(address: str) -> Any:
    number = int(ipaddress.ip_address(address))
    if ":" in address:
        return net_pb2.IPAddress(ipv6=net_pb2.IPv6(first=number >> 64, last=number & (1 << 64) - 1))
    return net_pb2.IPAddress(ipv4=number)


def tcp_address(address: str, port: int) -> Any:
    return net_pb2.TcpAddress(ip=ip(address), port=port)


def address_text(address: Any) -> str:
    """`10.0.0.1:8080` or `[::1]:8080`, as a proxy writes it in a path."""
    if address.ip.WhichOneof("ip") == "ipv6":
        number = address.ip.ipv6.first << 64 | address.ip.ipv6.last
        return f"[{ipaddress.IPv6Address(number)}]:{address.port}"
    return f"{ipaddress.IPv4Address(address.ip.ipv4)}:{address.port}"


@lru_cache(maxsize=256)
def network(cidr: str, excepted: tuple[str, ...] = ()) -> Any:
    """Shared: for being copied into another message only."""
    return inbound_pb2.Network(net=_net(cidr), **{"except": [_net(each) for each in excepted]})


def _net(cidr: str) -> Any:
    parsed = ipaddress.ip_network(cidr)
    return net_pb2.IPNetwork(ip=ip(str(parsed.network_address)), prefix_len=parsed.prefixlen)


def duration(seconds: float) -> Any:
    whole = int(seconds)
    return Duration(seconds=whole, nanos=round((seconds - whole) * 1e9))


def default(name: str) -> Any:
    """Metadata of a default that Linkerd adds itself."""
    return meta_pb2.Metadata(default=name)


def resource(group: str, kind: str, name: str, namespace: str, port: int = 0) -> Any:
    return meta_pb2.Metadata(
        resource=meta_pb2.Resource(group=group, kind=kind, name=name, namespace=namespace, port=port)
    )
