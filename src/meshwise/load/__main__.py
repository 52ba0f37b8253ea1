"""The instrument's process: `python -m meshwise.load --spec SPEC.json --out DIR` (contract: load/spec.py).

Instead of `--out DIR`: `--report FILE ... --records FILE ...`, of each target one report, and a records file
for each process.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path


def main() -> int:
    # Before numpy is imported: its linear algebra would start threads that poll, beside a loop that
    # wants the core for itself.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from meshwise.core import messages
    from meshwise.core.errors import MeshwiseError
    from meshwise.load.dealt import Dealt
    from meshwise.load.files import RunFiles
    from meshwise.load.instrument import CannotConnect, run_dealt

    parser = argparse.ArgumentParser(prog="python -m meshwise.load")
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--report", type=Path, nargs="+", default=())
    parser.add_argument("--records", type=Path, nargs="+", default=())
    arguments = parser.parse_args()
    try:
        try:
            dealt = Dealt.from_json(arguments.spec.read_text())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise messages.BAD_LOAD_SPEC.error(where=str(arguments.spec), why=str(error)) from error
        processes = dealt.first.processes if dealt.targets else 1
        if arguments.out:
            files = RunFiles.of_each(arguments.out, len(dealt.targets), processes)
        else:
            files = RunFiles.of_paths(arguments.records, arguments.report)
        run_dealt(dealt, files, _say)
    except MeshwiseError as error:
        facts = {name: getattr(error, name) for name in ("code", "fault", "what", "remedy", "where")}
        targets = error.targets if isinstance(error, CannotConnect) else {}
        _say({"event": "failed", **facts, "targets": targets})
        return error.exit_status
    return 0


def _say(event: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
