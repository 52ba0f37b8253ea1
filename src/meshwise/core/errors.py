"""Errors that say what went wrong, where, whose fault it is, and what to do about it.

Every error that a user can see is a `MeshwiseError`. Anything else that escapes is a defect of meshwise.
The texts live in one place, `meshwise.core.messages`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Fault(StrEnum):
    """Whose fault an error is; it decides the exit status."""

    STUDY = "study"
    ENVIRONMENT = "environment"
    PROXY = "proxy"
    MESHWISE = "meshwise"


class ExitStatus(IntEnum):
    """Exit status of the process (docs/commands.md)."""

    DONE = 0
    ANSWER_IS_NO = 1
    BAD_INPUT = 2
    ENVIRONMENT = 3


@dataclass(eq=False)  # not frozen: contextlib assigns __traceback__ on its way out
class MeshwiseError(Exception):
    """An error for people: a stable code, what happened, where, and the remedy."""

    code: str
    fault: Fault
    what: str
    remedy: str
    where: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.what} [{self.code}]\nhint: {self.remedy}"

    @property
    def exit_status(self) -> ExitStatus:
        return ExitStatus.BAD_INPUT if self.fault is Fault.STUDY else ExitStatus.ENVIRONMENT


@dataclass(frozen=True)
class Message:
    """One entry of the catalogue; `{names}` in the texts are filled by `error()`."""

    code: str
    fault: Fault
    what: str
    remedy: str

    def error(self, where: str = "", **facts: object) -> MeshwiseError:
        return MeshwiseError(
            code=self.code,
            fault=self.fault,
            what=self.what.format(**facts),
            remedy=self.remedy.format(**facts),
            where=where,
        )


def study_fault(code: str, what: str, remedy: str) -> Message:
    return Message(code, Fault.STUDY, what, remedy)


def environment_fault(code: str, what: str, remedy: str) -> Message:
    return Message(code, Fault.ENVIRONMENT, what, remedy)


def proxy_fault(code: str, what: str, remedy: str) -> Message:
    return Message(code, Fault.PROXY, what, remedy)


def meshwise_fault(code: str, what: str, remedy: str) -> Message:
    return Message(code, Fault.MESHWISE, what, remedy)
