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
NOT_COMPARABLE = study_fault(
    "MW704",
    "these counts may not be compared with it: {reasons}",
    "compare with a count of the same proxies, counter and study; `meshwise count` writes baseline.json",
)
NO_COUNTS = study_fault(
    "MW705",
    "it holds nothing that was counted: {reason}",
    "give findings.json, or baseline.json as `meshwise count` writes it",
)
NO_PROFILES = study_fault(
    "MW706", "none of its trials was profiled", "write `profile: true` into the study, and run it"
)
NOTHING_TO_ANALYZE = environment_fault(
    "MW710",
    "none of the {trials} trials was measured to its end",
    "see `failure` in trials.parquet for why, mend it, and continue with `meshwise run ... --resume`",
)
NO_TRACE = study_fault(
    "MW711",
    "there is nothing to show: {what}",
    "trials with spans: {known}; a study has them where its factor `tracing` is above 0",
)
