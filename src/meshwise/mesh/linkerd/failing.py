"""How services of the control plane fail while they run: they refuse, are slow, or are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum

from meshwise.mesh.linkerd.names import ControlService

SLOW_S = 3.0
"""As Istio's authority is slow here (`mesh.istio.workloads`)."""


class FaultMode(StrEnum):
    REFUSED = "refused"
    """Every call and every open stream ends with UNAVAILABLE."""
    SLOW = "slow"
    """Whatever is answered or sent leaves `SLOW_S` late."""
    GONE = "gone"
    """Nobody listens and every connection is closed."""


class Signal:
    """Wakes all who wait for something to change. Take `next` before looking at what may change."""

    def __init__(self) -> None:
        self.next = asyncio.Event()

    def give(self) -> None:
        given, self.next = self.next, asyncio.Event()
        given.set()


class ServiceFaults:
    """What fails now. `changed` is given when that changes."""

    def __init__(self, changed: Signal) -> None:
        self._modes: dict[ControlService, FaultMode] = {}
        self._changed = changed

    @property
    def modes(self) -> Mapping[ControlService, FaultMode]:
        return self._modes

    def answers(self, service: ControlService) -> bool:
        """Be it late."""
        return self._modes.get(service) in (None, FaultMode.SLOW)

    def begin(self, service: ControlService, mode: FaultMode) -> None:
        self._modes[service] = mode
        self._changed.give()

    def end(self, service: ControlService) -> None:
        self._modes.pop(service, None)
        self._changed.give()

    async def pass_by(self, service: ControlService, refusal: Callable[[str, str], Exception]) -> None:
        """Returns when an answer may be given. Raises `refusal` of a gRPC status and words."""
        match self._modes.get(service):
            case FaultMode.SLOW:
                await asyncio.sleep(SLOW_S)
            case FaultMode.REFUSED:
                raise refusal("UNAVAILABLE", f"the {service} service refuses every call")
