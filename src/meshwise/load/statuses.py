"""Status codes of records by name: HTTP's as they are, gRPC's with the name of the code. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from meshwise.load.wire.seam import GRPC_STATUS_BASE

GRPC_NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
"""grpc/grpc, doc/statuscodes.md."""


def status_name(status: int) -> str:
    """`status` as in the records: 200 -> `200`, 1014 -> `grpc 14 UNAVAILABLE`."""
    if status < GRPC_STATUS_BASE:
        return str(status)
    code = status - GRPC_STATUS_BASE
    return f"grpc {code} {GRPC_NAMES[code]}" if code < len(GRPC_NAMES) else f"grpc {code}"


def count_statuses(statuses: npt.NDArray[np.int64]) -> dict[str, int]:
    """Name -> how many, in order of the code; those without a status (0) are left out."""
    codes, counts = np.unique(statuses[statuses != 0], return_counts=True)
    return {status_name(int(code)): int(count) for code, count in zip(codes, counts, strict=True)}


def redirects(counts: dict[str, int]) -> int:
    """Of `count_statuses`."""
    return sum(count for name, count in counts.items() if len(name) == 3 and name.startswith("3"))
