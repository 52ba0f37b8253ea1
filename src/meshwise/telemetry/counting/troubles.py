"""What all counters say when a counted process has ended."""

from __future__ import annotations

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.process import OwnedProcess


def ended(process: OwnedProcess, counter: str, told: str) -> MeshwiseError:
    """MW235."""
    return messages.COUNTED_ENDED.error(
        name=process.name, ending=process.ending, counter=counter, tail=told or "(its log is empty)"
    )


def require_running(process: OwnedProcess, counter: str) -> None:
    """Raises MW235 when the counted process has ended."""
    if not process.running:
        raise ended(process, counter, process.log_tail())
