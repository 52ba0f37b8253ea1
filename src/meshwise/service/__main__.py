"""`python -m meshwise.service --spec NODE.json`: one node, until SIGTERM. It prints nothing but errors."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from meshwise.core.errors import MeshwiseError
from meshwise.service.node import serve
from meshwise.service.spec import NodeSpec


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m meshwise.service", description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="the node, as JSON (meshwise.service.spec)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        serve(NodeSpec.read(arguments.spec))
    except MeshwiseError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_status)
    return 0


if __name__ == "__main__":
    sys.exit(main())
