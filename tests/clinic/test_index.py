"""The page on a cohort: who comes first, where it leads, and the table beside it."""

import csv
import html
import math

import pytest

from pimms_tf.clinic.index import COLUMNS, PatientRow, by_doubt, patient_row, write_index
from pimms_tf.clinic.lesions import lesions_of


def rows(a_result):
    result = a_result()
    doubtful = patient_row(result, lesions_of(result), "sub 1#")
    sure = PatientRow("=sure", "b", 10.0, (9.0, 11.0), 3, 1, 2, 3, 3, 5.0)
    failed = PatientRow("failed <b>", "c", error="no scan is there")
    return sure, doubtful, failed


def test_failures_come_first_then_the_doubtful(a_result):
    sure, doubtful, failed = rows(a_result)
    assert by_doubt([sure, doubtful, failed]) == [failed, doubtful, sure]
    assert sure.doubt == pytest.approx(0.2)
    assert doubtful.doubt > len(doubtful.remarks) == 3
    assert failed.doubt == math.inf


def test_the_page_links_to_patients_who_have_one(tmp_path, a_result):
    page = write_index(rows(a_result), tmp_path).read_text(encoding="utf-8")
    assert 'href="sub%201%23/report.html"' in page
    assert page.count("report.html") == 2
    assert "failed &lt;b&gt;" in page
    assert "no scan is there" in page
    assert page.index("failed") < page.index("sub%201") < page.index("=sure")


def test_the_table_reads_back(tmp_path, a_result):
    write_index(rows(a_result), tmp_path)
    with (tmp_path / "patients.tsv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file, delimiter="\t"))
    assert tuple(found[0]) == COLUMNS
    assert [row["patient"] for row in found] == ["failed <b>", "p 1", "'=sure"]
    assert (found[0]["volume_ml"], found[0]["error"]) == ("n/a", "no scan is there")
    assert float(found[2]["volume_ml"]) == 10
    assert html.escape(found[1]["remarks"]).startswith("The volume is unusual.; ")


def test_a_cohort_of_none_has_a_page(tmp_path):
    assert "0 patients" in write_index([], tmp_path).read_text(encoding="utf-8")
