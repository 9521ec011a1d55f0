"""The committed results of a comparison, and the page that tells of them: neither may say what the other does not."""

import re
from pathlib import Path

import pytest

from pimms_tf.comparison import Comparison, read_comparison, report_text, with_parts

STUDY = Path(__file__).parents[2] / "docs" / "study"
KEPT = STUDY / "small"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return read_comparison(KEPT)


def test_the_committed_report_is_that_of_the_committed_results(comparison):
    assert (KEPT / "report.md").read_text(encoding="utf-8") == report_text(comparison)


def test_the_page_shows_the_tables_of_the_committed_results(comparison):
    page = (STUDY / "README.md").read_text(encoding="utf-8")
    assert page.count("<!-- report: ") >= 6
    assert with_parts(page, comparison) == page


def test_what_the_page_says_came_out_uses_numbers_of_the_report_alone(comparison):
    page = with_parts((STUDY / "README.md").read_text(encoding="utf-8"), comparison)
    prose = re.sub(r"<!-- report: .*?<!-- end -->", "", page, flags=re.DOTALL)
    said = re.search(r"\n## What came out\n(.*?)\n## ", prose, flags=re.DOTALL)[1]
    known = set(re.findall(r"\d+\.\d+", report_text(comparison)))
    numbers = set(re.findall(r"\d+\.\d+", said))
    assert numbers  # otherwise nothing is checked
    assert numbers <= known


def test_what_is_committed_holds_no_scan_and_no_place_of_a_patient():
    files = [path for path in KEPT.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".csv", ".ini", ".json", ".md", ".png"}
    assert {path.name for path in files if path.suffix == ".png"} == {"boxes.png", "contours.png"}
    assert not (KEPT / "gold").exists()
    texts = [path.read_text(encoding="utf-8") for path in files if path.suffix != ".png"]
    assert not [text for text in texts if re.search(r"(^|[,\s\"])/[a-z]", text)]  # a path from the root
    assert sum(path.stat().st_size for path in files) < 2_000_000
