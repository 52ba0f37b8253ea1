"""MW7xx: analysis and report."""

from __future__ import annotations

from meshwise.core.errors import environment_fault, study_fault

NO_FINDINGS = study_fault(
    "MW701", "there is nothing to report: {reason}", "run `meshwise analyze {directory}` first"
)
NO_FINDINGS_DOCUMENT = study_fault(
    "MW702", "not findings of meshwise: {reason}", "write it anew with `meshwise analyze DIR`"
)
NEWER_FINDINGS = study_fault(
    "MW703", "findings of version {found}; this meshwise reads up to {known}", "use a newer meshwise"
)
NOTHING_TO_ANALYZE = environment_fault(
    "MW710",
    "none of the {trials} trials was measured to its end",
    "see `failure` in trials.parquet for why, mend it, and continue with `meshwise run ... --resume`",
)
