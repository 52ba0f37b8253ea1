"""`python -m meshwise.service.bank --spec SERVICE.json`: one service of the bank, until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.service.bank.spec import BankSpec


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m meshwise.service.bank", description=__doc__)
    parser.add_argument(
        "--spec", type=Path, required=True, help="the service, as JSON (meshwise.service.bank.spec)"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        spec = BankSpec.read(arguments.spec)
        try:
            from meshwise.service.bank import application
        except ModuleNotFoundError as error:
            raise messages.BANK_EXTRA.error(package=error.name) from error
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(application.run(spec))
    except MeshwiseError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_status)
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, where there is one: it takes less CPU than the loop of asyncio."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
