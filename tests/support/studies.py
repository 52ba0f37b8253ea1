"""Small studies made in code, for tests of the testbed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshwise.study.model import (
    NO_MESH,
    Arrivals,
    Cell,
    Control,
    KeyType,
    MeshName,
    Posture,
    Protocol,
    Role,
    Study,
    TopologyKind,
    Trial,
    TrialPlan,
)  # fmt: skip


def cell(posture: Posture = NO_MESH, protocol: Protocol = Protocol.HTTP1, **more: Any) -> Cell:
    """Of Istio, or of no mesh for the posture `none`; 300 requests a second on four connections."""
    levels: dict[str, Any] = {
        "mesh": MeshName.NONE if posture == NO_MESH else MeshName.ISTIO,
        "posture": posture, "protocol": protocol, "rate_rps": 300.0, "request_bytes": 64,
        "response_bytes": 512, "connections": 4,
        "streams": 1 if protocol in (Protocol.HTTP1, Protocol.TCP) else 4,
        "shape": TopologyKind.CHAIN, "length": 1, "key_type": KeyType.ECDSA_P256,
        "policy_count": 0, "plaintext_share": 0.0,
    }  # fmt: skip
    return Cell(**{**levels, **more})


def study(cells: Sequence[Cell], **more: Any) -> Study:
    values: dict[str, Any] = {
        "name": "test", "seed": 1, "environments": tuple(dict.fromkeys(one.mesh for one in cells)),
        "cells": tuple(cells), "not_applicable": (), "control": Control(),
        "trial": TrialPlan(400_000_000, 600_000_000, Arrivals.CONSTANT, 10**9), "blocks": 1,
        "blocks_per_execution": 1, "proxy_workers": 1, "pin_cpus": False, "outlier_rule": "none",
        "primary_metrics": (), "confidence": 0.95,
    }  # fmt: skip
    return Study(**{**values, **more})


def trial(number: int, of: Cell, role: Role = Role.CELL) -> Trial:
    return Trial(f"b000-p{number:02}", 0, 0, number, of, role)
