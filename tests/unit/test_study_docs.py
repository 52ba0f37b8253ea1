"""docs/study-file.md is right: its examples are read, its tables name every key, factor and study."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meshwise.study.file.keys import Factors, StudyFile
from meshwise.study.file.read import parse_study

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/study-file.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_is_a_study(text: str) -> None:
    assert parse_study(text, "example").cells


def test_every_key_factor_and_study_is_in_a_table() -> None:
    rows = {
        name
        for line in PAGE.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line)
    }
    assert set(StudyFile.model_fields) <= rows
    assert set(Factors.model_fields) <= rows
    assert {path.stem for path in (ROOT / "studies").glob("*.yaml")} <= rows
