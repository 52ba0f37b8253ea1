"""The instrument's process: `python -m meshwise.load --spec SPEC.json --out DIR` (contract: load/spec.py).

With `processes` above 1 this process is the first of them and forks the others before it connects; all
agree on one start. Each has its own records file and its own share of connections and schedule.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.load.instrument import run_instrument
from meshwise.load.spec import LoadSpec


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m meshwise.load")
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        try:
            spec = LoadSpec.from_json(arguments.spec.read_text())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise messages.BAD_LOAD_SPEC.error(where=str(arguments.spec), why=str(error)) from error
        run_instrument(spec, arguments.out, _say)
    except MeshwiseError as error:
        _say(
            {"event": "failed", "code": error.code, "fault": error.fault, "what": error.what,
             "remedy": error.remedy, "where": error.where}
        )  # fmt: skip
        return error.exit_status
    return 0


def _say(event: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
