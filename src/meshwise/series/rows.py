"""Series as CSV: a row per point, `series,labels,t_unix_ns,value`, labels as OpenMetrics writes them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from meshwise.series.lines import AnySeries, number, plain
from meshwise.series.openmetrics import label_text

COLUMNS = ("series", "labels", "t_unix_ns", "value")


def write_csv(batches: Iterable[Sequence[AnySeries]], out: BinaryIO) -> int:
    """Returns the number of rows, without the header."""
    written = 0
    out.write((",".join(COLUMNS) + "\n").encode())
    for batch in batches:
        for line in batch:
            for sample in plain(line):
                labels = label_text(sample.labels)
                text = io.StringIO()
                csv.writer(text, lineterminator="\n").writerows(
                    (sample.name, labels, t_ns, number(value))
                    for t_ns, value in zip(sample.t_ns.tolist(), sample.values.tolist(), strict=True)
                )
                out.write(text.getvalue().encode("utf-8", "replace"))
                written += len(sample.t_ns)
    return written
