"""Waiting until proxies have a push in force: first what they answered, then what they say of themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from meshwise.core import messages
from meshwise.mesh.delivery.seam import Acknowledgement, Delivery
from meshwise.mesh.istio import taken_up
from meshwise.mesh.istio.admin import EnvoyAdmin, Stats
from meshwise.study.model import Cell

_RECONNECT_S = 35.0
"""Envoy tries to reach a control plane that was gone at most 30 s later (its backoff, which Istio leaves)."""
_POLL_S = 0.005


def acknowledged(
    delivery: Delivery, proxies: Mapping[str, Path], cell: Cell, within_s: float
) -> Mapping[str, Acknowledgement]:
    """What these proxies (their directories by name) answered, all of them accepting. Raises MW404 (refused),
    MW405 (too slow) or MW421."""
    told = delivery.acknowledged(proxies.values(), within_s)
    if any(not each.connected for each in told.values()):  # the control plane was gone
        told = delivery.acknowledged(proxies.values(), _RECONNECT_S)
    for name, directory in proxies.items():
        found = told[directory]
        if found.refused:
            reason = "; ".join(f"{kind}: {words}" for kind, words in found.refused.items())
            raise messages.CONFIG_REFUSED.error(pod=name, cell=cell.name, reason=reason)
        if found.done_ns is None:
            waiting = "its answer" if found.connected else "its stream to the control plane"
            raise messages.CONFIG_SLOW.error(pod=name, cell=cell.name, timeout=within_s, waiting=waiting)
    return {name: told[directory] for name, directory in proxies.items()}


def settle(
    admin: EnvoyAdmin,
    cell: Cell,
    waiting_for: Callable[[Stats], list[str]],
    settle_s: float,
    deadline: float,
) -> None:
    """Returns when the proxy has taken up what it accepted. Raises MW405 when that takes too long."""
    while waiting := waiting_for(admin.stats(taken_up.WATCHED)):
        if time.monotonic() > deadline:
            raise messages.CONFIG_SLOW.error(
                pod=admin.pod, cell=cell.name, timeout=settle_s, waiting="; ".join(waiting)
            )
        time.sleep(_POLL_S)
