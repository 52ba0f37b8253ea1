"""`meshwise schema`: the JSON Schema of study files, for an editor."""

from __future__ import annotations

import typer

from meshwise.study.file.schema import study_schema_text


def schema() -> None:
    """Print the JSON Schema of study files.

    An editor completes and checks a study that begins with
    `# yaml-language-server: $schema=study.schema.json`.

    Example: meshwise schema > studies/study.schema.json
    """
    typer.echo(study_schema_text(), nl=False)
