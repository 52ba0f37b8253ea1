"""MW1xx: the study and the files it names."""

from __future__ import annotations

from meshwise.core.errors import environment_fault, study_fault

STUDY_PROBLEMS = study_fault(
    "MW100", "{count} problems in the study\n{problems}", "mend them; `meshwise plan` checks again"
)
BAD_UNIT = study_fault(
    "MW101", "`{text}` is not a {kind}", "write a number and a unit, for example {example}"
)
NOT_YAML = study_fault("MW102", "not YAML: {reason}", "see docs/study-file.md for the form of a study")
UNKNOWN_KEY = study_fault("MW103", "`{key}` is not a key here{meant}", "the keys here: {known}")
UNKNOWN_LEVEL = study_fault("MW104", "`{text}` is not a {kind}{meant}", "choose from: {known}")
BAD_VALUE = study_fault("MW105", "{reason}", "{remedy}")
MISSING_KEY = study_fault("MW106", "the key `{key}` is missing", "add `{key}:`; {example}")
IMPOSSIBLE = study_fault("MW107", "{reason}", "{remedy}")
TOO_LARGE = study_fault("MW108", "{reason}", "{remedy}")
UNREADABLE_STUDY = study_fault("MW109", "cannot read the study: {reason}", "give the path of a file")
TWICE = study_fault("MW110", "{what} stands here twice", "keep one of them{first}")
YAML_FEATURE = study_fault("MW111", "{feature} are not used in a study", "{remedy}")
MATCHES_NOTHING = study_fault("MW112", "{what} matches no cell", "{remedy}")
BAD_TRACE = study_fault("MW113", "the trace: {what}", "{remedy}")
UNREADABLE_GRAPH = study_fault(
    "MW120",
    "cannot read the service graph: {reason}",
    "give a file; its path counts from the study's",
)
CANNOT_WRITE_DRAWING = environment_fault(
    "MW121", "the drawing cannot be written: {reason}", "give a path where you may write"
)
