"""Does everything together cost more than the sum of its parts? Only factorial cells can tell.

A ladder cannot: its increments telescope, so their sum is the total by construction. Asked for are the four
cells neither, mTLS alone, authorization alone, both: `both - mTLS - authorization + neither`. Above 0 means
super-additive on the scale of costs (the verdict's); on logs it means more than multiplicative (the ratio).
Percentiles of independent costs do not add, so beyond the median the contrast only describes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshwise.analysis.contrast import Contrast, Naming, agree, cell_scope, has_mtls, partner
from meshwise.findings.metric import Metric, Scale
from meshwise.findings.subject import Interaction, Subject
from meshwise.study.model import Authorization, Cell, MtlsMode, Posture


def interactions(cells: Sequence[Cell], naming: Naming) -> Iterator[Contrast]:
    """One contrast per mesh, pair of features and setting that has all four cells."""
    for both in cells:
        mtls, authorization = both.posture.mtls, both.posture.authorization
        if not has_mtls(both) or authorization is Authorization.NONE:
            continue
        own = [cell for cell in cells if cell.mesh is both.mesh]
        parts = [
            partner(both, [cell for cell in own if cell.posture == posture])
            for posture in (
                Posture(mtls), Posture(MtlsMode.DISABLE, authorization), Posture(MtlsMode.DISABLE),
            )
        ]  # fmt: skip
        mtls_alone, authorization_alone, neither = parts
        if mtls_alone is None or authorization_alone is None or neither is None:
            continue
        if not all(agree(part, both) for part in (mtls_alone, authorization_alone, neither)):
            continue
        yield Contrast(
            Interaction(cell_scope(both)),
            family=f"interaction/{both.mesh}",
            terms=((both, 1), (mtls_alone, -1), (authorization_alone, -1), (neither, 1)),
            key=f"{both.mesh}/interaction/{mtls}+{authorization}/{naming.key(both)}",
            across_processes=False,
            scale=Scale.DIFFERENCE,
        )


def only_describes(subject: Subject, metric: Metric) -> bool:
    """Whether it is an interaction, of a metric of which that must not be judged."""
    return isinstance(subject, Interaction) and metric.percentile is not None and metric.percentile > 0.5
