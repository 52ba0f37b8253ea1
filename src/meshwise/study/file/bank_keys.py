"""What a study file says of the bank: `load: mix`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from meshwise.study.bank import BankOperation
from meshwise.study.file.problems import Problem, impossible
from meshwise.study.file.scalars import Part
from meshwise.study.topology import TopologyKind

Weight = Annotated[float, Field(ge=0, le=1_000_000)]


class MixPart(Part):
    """What clients of the bank ask for, with weights; what is not named is not asked."""

    profile: Annotated[Weight, Field(description="Read a user, mostly from the cache.")] = 0
    transfer: Annotated[Weight, Field(description="Move money, in one database transaction.")] = 0
    notify: Annotated[Weight, Field(description="Move money and tell the payee: a saga.")] = 0
    statement: Annotated[Weight, Field(description="Gather from four services at once.")] = 0

    @property
    def weights(self) -> tuple[tuple[BankOperation, float], ...]:
        """Without those of weight 0."""
        return tuple((each, weight) for each in BankOperation if (weight := getattr(self, each)) > 0)


def check_bank(shape: TopologyKind, mix: MixPart | None, problems: list[Problem]) -> None:
    """What this key cannot mean, where the file says it."""
    if mix is not None and shape is not TopologyKind.BANK:
        reason = "only the bank has operations to mix"
        problems.append(impossible(("load", "mix"), reason, "leave it out, or say `topology: bank`"))
    elif mix is not None and not mix.weights:
        problems.append(impossible(("load", "mix"), "a mix of nothing", "give an operation a weight above 0"))
