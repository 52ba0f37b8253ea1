"""The wires between pods: one bridge in the world's own namespace, one veth pair per pod.

Addresses are on one flat network, as Kubernetes has it (`mesh.seam.POD_RANGE`). Service addresses
(SERVICE_RANGE) have a route but no owner: a packet to one leaves the pod only if no sidecar captures it, and
then there is no answer. Everything here ends with the world's namespaces; `close` only makes it sooner.
"""

from __future__ import annotations

import errno
import ipaddress
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from meshwise.core import linux, messages
from meshwise.core.patience import USUAL, Patience
from meshwise.mesh.seam import POD_RANGE, SERVICE_RANGE, Capture
from meshwise.testbed.local.nft import Chain, capture_chains, install, open_netlink
from meshwise.testbed.local.pod import Pod

_BRIDGE = "meshwise0"
POD_INTERFACE = "eth0"
_PREFIX = ipaddress.IPv4Network(POD_RANGE).prefixlen
_BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


@contextmanager
def network(wanted: Sequence[tuple[str, str]], patience: Patience = USUAL) -> Iterator[dict[str, Pod]]:
    """Make a pod for each (name, ip), wired together; yields them by name. Raises MW501.

    Must run in the world's own network namespace.
    """
    with ExitStack() as stack, _telling("a bridge between pods"):
        route = stack.enter_context(IPRoute())
        _up(route, "lo")
        bridge = _make_bridge(route)
        stack.callback(_remove, route, bridge)
        pods = {}
        for number, (name, ip) in enumerate(wanted):
            pod = Pod(name, ip, linux.new_network(), patience)
            stack.callback(pod.close)
            # By hand: the kernel removes a namespace's links some time after its last user is gone.
            stack.callback(_remove, route, _wire(route, bridge, f"pod{number}", pod))
            pods[name] = pod
        yield pods


def capture(pod: Pod, rules: Capture, *, privileged: bool) -> tuple[Chain, Chain]:
    """Install the sidecar's nat rules in a pod and return them. Raises MW502."""
    chains = capture_chains(rules, privileged=privileged)
    kernel_s = pod.patience.kernel_s
    with linux.in_network(pod.network_fd, lambda: open_netlink(kernel_s)) as netlink:
        install(chains, netlink)
    return chains


def _make_bridge(route: Any) -> int:
    route.link("add", ifname=_BRIDGE, kind="bridge")
    if _BRIDGE_FILTER.exists():  # else the world's own (empty) packet filter would see every frame
        _BRIDGE_FILTER.write_text("0")
    return _up(route, _BRIDGE)


def _wire(route: Any, bridge: int, outer: str, pod: Pod) -> int:
    """Returns the index of the outer end."""
    linux.in_network(pod.network_fd, _settle)
    peer = {"ifname": POD_INTERFACE, "net_ns_fd": pod.network_fd}
    route.link("add", ifname=outer, kind="veth", peer=peer)
    index = _index(route, outer)
    route.link("set", index=index, master=bridge, state="up")
    linux.in_network(pod.network_fd, lambda: _configure(pod.ip))
    return index


def _configure(ip: str) -> None:
    with IPRoute() as inside:
        _up(inside, "lo")
        interface = _index(inside, POD_INTERFACE)
        inside.addr("add", index=interface, address=ip, prefixlen=_PREFIX)
        inside.link("set", index=interface, state="up")
        inside.route("add", dst=SERVICE_RANGE, oif=interface, prefsrc=ip)


def _settle() -> None:
    """New interfaces of this namespace send no router solicitations (`lo` keeps its ::1). A port may be used
    again a second after its connection ended, else a new connection for each request would have used up all
    ports at some 470/s."""
    for name, value in (("ipv6/conf/default/disable_ipv6", "1"), ("ipv4/tcp_tw_reuse", "1")):
        setting = Path("/proc/sys/net", name)
        if setting.exists():
            setting.write_text(value)


def _up(route: Any, name: str) -> int:
    index = _index(route, name)
    route.link("set", index=index, state="up")
    return index


def _index(route: Any, name: str) -> int:
    return int(route.link_lookup(ifname=name)[0])


def _remove(route: Any, index: int) -> None:
    route.link("del", index=index)


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """Turn the kernel's refusals, while links are made, into MW501."""
    try:
        yield
    except NetlinkError as error:
        reason = os.strerror(error.code) if error.code in errno.errorcode else str(error)
        raise messages.LINK_REFUSED.error(what=what, reason=reason) from error
