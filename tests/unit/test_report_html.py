"""The page: whole, self-contained, safe with hostile texts, accessible, drawings finite; in every variant."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.support.report_sample import (
    NOT_APPLICABLE,
    STATUSES,
    chain,
    environment,
    factorial,
    findings,
    policies,
)
from tests.support.report_study import ladder_archive

from meshwise.archive.outcome import Check
from meshwise.report.content import content
from meshwise.report.html import render
from meshwise.report.record import FailedTrial, ProofSummary, Record, read_record
from meshwise.report.sections import report_of

SECTIONS = ("summary", "trust", "proof", "fairness", "environment", "reproduce")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{ 7 * 7 }}"
VOID = {"wbr", "meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks nesting as it reads; keeps tags with their attributes, and text by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page from a whole fake study: two meshes, one failed trial, one unproven."""
    reader = ladder_archive(
        tmp_path_factory.mktemp("archive") / "study",
        meshes="istio, linkerd", crashes=("b001-p02",), unproven=("b002-p03",),
    )  # fmt: skip
    from meshwise.cli.report import read_content

    record = read_record(reader)
    return render(report_of(read_content(reader), record), record, "my-study")


VARIANTS = {
    "one mesh": findings(),
    "two meshes, three protocols": findings(("istio", "linkerd"), ("http1", "http2", "grpc")),
    "chain": chain(("istio", "linkerd")),
    "features": factorial(),
    "policies": policies(),
    "no mesh": findings(()),
    "no findings": findings() | {"findings": []},
    "empty": {"schema_version": 1, "study": {}, "environment": {}, "findings": []},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_a_whole_page(name: str) -> None:
    study = VARIANTS[name]["study"] | {"not_applicable": NOT_APPLICABLE}
    document = VARIANTS[name] | {"study": study}
    page = Page(
        render(
            report_of(content(document, statuses=STATUSES), Record()),
            Record(),
        )
    )
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(SECTIONS) <= set(ids)
    for attributes in page.named("a"):
        assert (attributes["href"] or "").removeprefix("#") in ids
    for _, attributes in page.tags:
        for target in (attributes.get("aria-labelledby") or "").split():
            assert target in ids


def test_the_real_page_has_everything(real: str) -> None:
    page = Page(real)
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {
        *SECTIONS,
        "http1",
        "http1-istio-distribution-t",
        "http1-linkerd-distribution-t",
        "http1-drift-t",
    } <= ids
    assert {"http1-response_p50_us-t", "http1-response_p50_us-step-t", "http1-cpu_us_per_request-t"} <= ids
    assert {"http1-proxy_cpu_us_per_request-client-t", "http1-proxy_memory_bytes-node-1-t"} <= ids
    assert {"http1-table-1", "http1-difference-1"} <= ids
    for said in (
        "Not a measurement", "b001-p02", "segmentation fault", "unproven", "TLSv1.3",
        "linkerd strict+fine (http1)", "Linkerd has no rule on a JWT claim",
        "meshwise run study.yaml --out my-study", "seed 3", "environments:",
    ):  # fmt: skip
        assert said in real, said


def test_nothing_is_loaded_and_nothing_runs(real: str) -> None:
    page = Page(real)
    assert {tag for tag, _ in page.tags}.isdisjoint(
        {"script", "link", "img", "iframe", "object", "embed", "base"}
    )
    loading = {"src", "srcset", "action", "data", "poster", "background"}
    for tag, attributes in page.tags:
        assert loading.isdisjoint(attributes), tag
        assert not any(name.startswith("on") for name in attributes), tag
        assert (attributes.get("href") or "#").startswith("#")
        assert "style" not in attributes
    assert "url(" not in real
    assert "@import" not in real
    assert not re.search(r"https?://", real)


def test_the_page_is_small(real: str) -> None:
    assert len(real.encode()) < 600_000


def test_hostile_texts_are_shown_and_never_run() -> None:
    document = findings()
    document["study"]["name"] = HOSTILE
    absent = dict.fromkeys(("mesh", "posture", "protocol", "reason"), HOSTILE)
    document["study"]["not_applicable"] = [absent]
    document["environment"] = environment() | {
        HOSTILE: HOSTILE,
        "fidelity": [{"code": HOSTILE, "what": HOSTILE}],
    }
    for entry in document["findings"]:
        entry["flags"] = [f"late_sends: {HOSTILE}"]
        entry["sentence"] = HOSTILE
        if entry["kind"] != "noise_floor":
            entry["scope"]["protocol"] = f"http1{HOSTILE}"
            entry["scope"]["mesh"] = f"istio{HOSTILE}" if entry["scope"]["mesh"] == "istio" else "none"
    proof = ProofSummary(
        HOSTILE, HOSTILE, HOSTILE, 1, 0, (Check(HOSTILE, HOSTILE, HOSTILE, False),), {"tls_version": HOSTILE}
    )
    record = Record(
        proofs=(proof,),
        troubles=(FailedTrial(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
        study_text=HOSTILE,
    )
    page = Page(
        render(
            report_of(content(document), record),
            record,
            HOSTILE,
        )
    )
    assert not page.named("script")
    assert not page.named("img")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    said = "".join(text for tag, text in page.texts if tag != "style")
    assert said.count(HOSTILE) > 15


def test_the_fairness_card_says_what_is_equal_and_what_is_not() -> None:
    document = findings(("istio", "linkerd"))
    document["fairness"] = [
        {"what": "workers", "equal": True, "istio": "2", "linkerd": "2", "basis": "observed"},
        {"what": "key type", "equal": False, "istio": "rsa-2048", "linkerd": "ecdsa-p256",
         "removable": "`key: ecdsa-p256`"},
        {"what": "build", "equal": False, "istio": "1", "linkerd": "2", "why_not": "it is what it is"},
    ]  # fmt: skip
    text = render(report_of(content(document), Record()), Record())
    assert "Istio and linkerd differ in 2 of 3 points, of which a study can make equal: key type." in text
    assert text.index(">key type<br>") < text.index("workers&nbsp;·<br>"), "what differs first"
    assert "<code>key: ecdsa-p256</code>" in text
    assert "no: it is what it is" in text
    row = text[text.index(">key type<br>") :].split("</tr>")[0]
    assert "✗&nbsp;differs" in row
    assert row.index("rsa-2048") < row.index("ecdsa-p256")
    assert "✓&nbsp;equal" in text


def drawings(text: str) -> list[ET.Element]:
    found = re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL)
    return [ET.fromstring(drawing) for drawing in found]


def test_drawings_are_finite_inside_their_frame_and_told_in_words(real: str) -> None:
    found = [drawing for drawing in drawings(real) if drawing.get("role") == "img"]
    assert len(found) > 12
    for drawing in found:
        _, _, width, height = map(float, (drawing.get("viewBox") or "").split())
        title, description = drawing.find("title"), drawing.find("desc")
        assert title is not None
        assert title.text
        assert description is not None
        assert len(description.text or "") > 20
        for element in drawing.iter():
            for name, limit in (
                ("x", width),
                ("y", height),
                ("x1", width),
                ("y2", height),
                ("cx", width),
                ("cy", height),
            ):
                if (value := element.get(name)) is not None:
                    assert math.isfinite(float(value))
                    assert -1 <= float(value) <= limit + 1
            numbers = re.findall(r"[-\d.]+|nan|inf", element.get("d") or "")
            assert all(math.isfinite(float(number)) for number in numbers)


def test_tables_are_tables_and_headings_have_an_order(real: str) -> None:
    page = Page(real)
    for tag, attributes in page.tags:
        if tag == "th":
            assert attributes.get("scope") in ("col", "row")
        if attributes.get("class") == "scroll":
            assert attributes.get("tabindex") == "0"
            assert attributes.get("role") == "region"
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert page.named("html")[0]["lang"] == "en"


def test_colors_are_in_contrast() -> None:
    """WCAG 2.1: text 4.5, lines and marks 3, against the paper of the same scheme."""
    css = (Path(render.__code__.co_filename).parent / "page.css").read_text()
    schemes = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)
    assert len(schemes) == 3
    for scheme in schemes:
        colors = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6});", scheme))
        paper = colors["paper"]
        for name in ("ink", "soft", "link", "costs", "saves", "alarm"):
            assert contrast(colors[name], paper) >= 4.5, name
        for name in (name for name in colors if name.startswith(("rung", "istio", "linkerd", "none"))):
            assert contrast(colors[name], paper) >= 3, name


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(digit * 2 for digit in color[1:])
    channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
