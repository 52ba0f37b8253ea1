"""A packet socket on a pod's link: what somebody on the wire between pods reads (packet(7))."""

from __future__ import annotations

import socket
import struct

from meshwise.mesh.overheard import Overheard, flows_of
from meshwise.testbed.local.links import POD_INTERFACE
from meshwise.testbed.local.pod import Pod

_EVERY_PROTOCOL, _IPV4 = 0x0003, 0x0800
_SOL_PACKET, _STATISTICS = 263, 6
_MOST_FRAME_BYTES = 1 << 17
"""Segments are put together before a link of this machine, up to 64 KiB."""


def on_link(pod: Pod) -> socket.socket:
    """Sees every packet that the pod sends and receives from now on. Frames begin with their IP header."""
    return listening_on(POD_INTERFACE, pod.open_socket(socket.AF_PACKET, socket.SOCK_DGRAM))


def listening_on(interface: str, link: socket.socket) -> socket.socket:
    """The packet socket itself, as `heard` wants it."""
    link.setblocking(False)
    link.bind((interface, _EVERY_PROTOCOL))
    return link


def heard(link: socket.socket, frames: list[bytes]) -> Overheard:
    """Appends to `frames` what has come since the last time, and reads them all. The kernel hands a packet to
    the socket while it is sent, so what was answered was seen."""
    while True:
        try:
            frame, (_, protocol, *_) = link.recvfrom(_MOST_FRAME_BYTES)
        except BlockingIOError:
            break
        if protocol == _IPV4:
            frames.append(frame)
    _, lost = struct.unpack("II", link.getsockopt(_SOL_PACKET, _STATISTICS, 8))
    return Overheard(flows_of(frames), len(frames), lost)
