"""The kernel's part of the checks: a temporary world with two pods, used as a study would use it.

Links are made, a connection crosses them, nat rules are installed, a redirected connection tells where it
wanted to go. All of it is gone when the world ends.
"""

from __future__ import annotations

import socket
import struct

from meshwise.core import linux
from meshwise.core.patience import USUAL
from meshwise.mesh.seam import Capture
from meshwise.testbed.local import links
from meshwise.testbed.local.pod import Pod
from meshwise.testbed.local.world import current_world

SO_ORIGINAL_DST = 80
"""linux/netfilter_ipv4.h"""

_PODS = [("left", "10.244.1.1"), ("right", "10.244.1.2")]
_SERVICE = ("10.96.1.1", 8080)
_CAPTURE = Capture(inbound_port=15006, outbound_port=15001, proxy_uid=1337, inbound_source="127.0.0.6")


def try_links() -> None:
    """Raises MeshwiseError or OSError unless two pods can talk. For a world."""
    with links.network(_PODS) as pods, _listener(pods["right"], 8080):
        pods["left"].dial(pods["right"].ip, 8080).close()


def try_capture() -> None:
    """Raises MeshwiseError or OSError unless a redirected connection keeps its destination. For a world."""
    with links.network(_PODS) as pods:
        pod = pods["left"]
        links.capture(pod, _CAPTURE, privileged=current_world().privileged)
        with _listener(pod, _CAPTURE.outbound_port) as listener, pod.dial(*_SERVICE):
            accepted, _ = listener.accept()
            with accepted:
                found = original_destination(accepted)
    if found != _SERVICE:
        raise OSError(f"a connection to {_SERVICE} came with the original destination {found}")


def original_destination(accepted: socket.socket) -> tuple[str, int]:
    """Where the peer of a redirected connection wanted to go."""
    raw = accepted.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
    return socket.inet_ntoa(raw[4:8]), struct.unpack_from(">H", raw, 2)[0]


def _listener(pod: Pod, port: int) -> socket.socket:
    listener = linux.in_network(pod.network_fd, lambda: socket.create_server(("0.0.0.0", port)))
    listener.settimeout(USUAL.dial_s)
    return listener
