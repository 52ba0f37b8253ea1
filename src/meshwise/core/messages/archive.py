"""MW6xx: a study's directory."""

from __future__ import annotations

from meshwise.core.errors import environment_fault, meshwise_fault, study_fault

ARCHIVE_EXISTS = study_fault(
    "MW601", "a study is already stored here", "continue it with `--resume`, or give another `--out`"
)
ARCHIVE_BUSY = environment_fault(
    "MW602", "another run (pid {pid}) is writing here", "wait for it, or give another `--out`"
)
NOT_EMPTY = study_fault(
    "MW603", "holds files that are no study: {names}", "give `--out` a new or an empty directory"
)
NOT_AN_ARCHIVE = study_fault(
    "MW604", "holds no study: {reason}", "give the directory that `meshwise run ... --out DIR` made"
)
OTHER_STUDY = study_fault(
    "MW605",
    "holds another study: {difference}",
    "resume with the study that is stored there (study.yaml), or give another `--out`",
)
UNWRITABLE = environment_fault(
    "MW606", "cannot write here: {reason}", "choose a directory where you may write"
)
NO_SPACE = environment_fault(
    "MW607",
    "no space left: {free} free, {needed} needed",
    "free some space, or take a directory on a larger file system; `--resume` continues a study",
)
DAMAGED = environment_fault(
    "MW608",
    "damaged: {reason}",
    "restore the file from a copy, or run the study again into another directory",
)
ALTERED = environment_fault(
    "MW609",
    "damaged: not as it was written: {difference}",
    "restore the file from a copy, or run the study again into another directory",
)
NEWER_SCHEMA = environment_fault(
    "MW610",
    "written in version {found} of the archive format; this meshwise reads up to {known}",
    "use a newer meshwise",
)
OTHER_ENVIRONMENT = environment_fault(
    "MW611",
    "the earlier trials ran in another environment: {differences}",
    "results of two environments are not pooled: restore the former one, or run into another `--out`",
)
BAD_TABLE = meshwise_fault(
    "MW612", "trial {trial_id} cannot be stored: {reason}", "please report this with the study file"
)
ALREADY_STORED = meshwise_fault(
    "MW613", "trial {trial_id} is already stored", "please report this with the study file"
)
STRANGE_FILE = environment_fault(
    "MW614",
    "{reason}, where meshwise keeps a plain file or directory of its own",
    "remove it if you do not know it: what is written there would land elsewhere; or give another directory",
)
