"""OpenMetrics text with timestamps: what `promtool tsdb create-blocks-from openmetrics` takes.

A family's samples have to stand together, while an archive is read trial by trial; so each family is kept in
a temporary file without a name until the end, and memory holds one trial. Source: the OpenMetrics
specification 1.0, section 5.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import BinaryIO

from meshwise.series.lines import AnySeries, Labels, PlainSeries, number, plain, to_ms
from meshwise.series.names import MetricFamily


def write_openmetrics(batches: Iterable[Sequence[AnySeries]], out: BinaryIO) -> int:
    """Returns the number of samples."""
    written = 0
    with ExitStack() as stack:
        kept: dict[MetricFamily, BinaryIO] = {}
        for batch in batches:
            for line in batch:
                if line.family not in kept:
                    kept[line.family] = stack.enter_context(tempfile.TemporaryFile())
                for sample in plain(line):
                    text, count = _lines(sample)
                    kept[line.family].write(text)
                    written += count
        for family in sorted(kept, key=lambda each: each.name):
            out.write(_head(family))
            kept[family].seek(0)
            shutil.copyfileobj(kept[family], out)
        out.write(b"# EOF\n")
    return written


def _head(family: MetricFamily) -> bytes:
    lines = [f"# TYPE {family.name} {family.kind}"]
    if family.unit:
        lines.append(f"# UNIT {family.name} {family.unit}")
    lines.append(f"# HELP {family.name} {_escaped(family.help)}")
    return ("\n".join(lines) + "\n").encode()


def _lines(sample: PlainSeries) -> tuple[bytes, int]:
    head = f"{sample.name}{label_text(sample.labels)}"
    times, values = to_ms(sample)
    text = "".join(
        f"{head} {number(value)} {t_ms // 1000}.{t_ms % 1000:03d}\n"
        for t_ms, value in zip(times.tolist(), values.tolist(), strict=True)
    )
    return text.encode("utf-8", "replace"), len(times)


def label_text(labels: Labels) -> str:
    """`{a="b",c="d"}`; empty without labels."""
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)
    return f"{{{inner}}}" if inner else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
