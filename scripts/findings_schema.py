"""Prints the JSON Schema of findings.json: `.venv/bin/python scripts/findings_schema.py >
docs/findings.schema.json`. A test compares the committed copy."""

from __future__ import annotations

import json
import sys

from meshwise.findings.schema import schema
from meshwise.mesh.traits import NAMES

if __name__ == "__main__":
    json.dump(schema(NAMES), sys.stdout, indent=2)
    sys.stdout.write("\n")
