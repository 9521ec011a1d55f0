"""The page on a patient: what it says, that it needs nothing else, and that a browser shows it without complaint."""

import html
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as Picture

from pimms_tf.clinic.lesions import lesions_of
from pimms_tf.clinic.provenance import Provenance
from pimms_tf.clinic.report import MOSAIC, doubts_of, write_report

MADE = Provenance("pimms-tf segment a b", "bundled", "ab" * 32, (("pimms-tf", "0.1.0"),), "2026-01-01 UTC", 1234.0)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# What a page is asked once it stands: whether it fits, whether the slider works, what it fetched.
QUESTIONS = """<script>addEventListener("load", () => {
  const place = document.getElementById("place"), told = [document.getElementById("slice").src.slice(-80)];
  place.value = 3; place.dispatchEvent(new Event("input"));
  told.push(document.getElementById("slice").src.slice(-80));
  document.querySelector("button[data-place]").click();
  const fetched = performance.getEntriesByType("resource").filter((one) => !one.name.startsWith("data:"));
  const answer = document.createElement("p"); answer.id = "answer";
  answer.textContent = [document.documentElement.scrollWidth, told[0] !== told[1], fetched.length,
    document.getElementById("where").textContent].join("|");
  document.body.append(answer);
});</script></body>"""


def the_text(page):
    return html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)))


def test_the_page_says_what_is_known(tmp_path, a_result):
    result = a_result()
    page = write_report(result, tmp_path, MADE, view_lines=["fsleyes x"]).read_text(encoding="utf-8")
    text = the_text(page)
    for said in (
        f"{result.volume_ml:.1f} ml",
        "Patient p 1",
        "The volume is unusual.",
        "scan_1.nii.gz: it covers 80 % of the brain",
        "odd.nii.gz was set aside: it is none of T1, T2, FLAIR",
        "scout",
        "moved by 0.0 mm on average",
        "ab" * 32,
        "pimms-tf segment a b",
        "12.3 seconds",
        "1,234 MB",
        "fsleyes x",
        "no medical device",
    ):
        assert said in text, said
    assert text.count("show") >= len(lesions_of(result)) == 2
    assert 'width="90.0"' in page


def test_the_page_fetches_nothing(tmp_path, a_result):
    page = write_report(a_result(), tmp_path, MADE).read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert not re.search(r"url\(|@import|https?:", page)


def test_names_are_shown_and_not_obeyed(tmp_path, a_result):
    nasty = "<script>alert(1)</script>\"'&"
    result = a_result(name=nasty)
    result = replace(result, scans=tuple(replace(scan, name=nasty) for scan in result.scans), reference=nasty)
    page = write_report(result, tmp_path, MADE).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert nasty in html.unescape(page)


def test_a_patient_without_lesions_or_a_brain_has_a_page(tmp_path, a_result, without_lesions):
    result = replace(without_lesions(a_result(contrasts=("FLAIR",))), brain=np.zeros((24, 24, 24), bool), flags=())
    text = the_text(write_report(result, tmp_path).read_text(encoding="utf-8"))
    assert "0.0 ml" in text
    assert "None were marked." in text
    assert "lie over one another" not in text
    assert "not recorded" in text
    assert "No brain was found in the scans." in doubts_of(result)


def test_the_mosaic_has_a_row_for_each_scan_and_shows_outlines(tmp_path, a_result, without_lesions):
    result = a_result()
    write_report(result, tmp_path / "a", MADE)
    write_report(without_lesions(result), tmp_path / "b", MADE)
    drawn, plain = (np.asarray(Picture.open(tmp_path / name / MOSAIC)) for name in "ab")
    height, width = drawn.shape[:2]
    assert width > 2 * height
    yellow = (drawn[..., 0] > 240) & (drawn[..., 2] < 20)
    assert yellow[: height // 2].any()
    assert yellow[height // 2 :].any()
    assert (plain[..., 0] == plain[..., 2]).all()


@pytest.mark.slow
def test_many_noisy_scans_stay_below_five_megabytes(tmp_path, a_result):
    result = a_result(size=160, spacing_mm=(1.0, 1.0, 1.0), contrasts=("FLAIR", "T1", "T2") * 6)
    rng = np.random.default_rng(0)
    noisy = [
        replace(scan, image=replace(scan.image, data=rng.uniform(0, 99, scan.image.data.shape).astype(np.float32)))
        for scan in result.used
    ]
    path = write_report(replace(result, scans=tuple(noisy)), tmp_path, MADE)
    assert path.stat().st_size < 5e6


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium, which is not installed")
def test_a_browser_shows_the_page_without_complaint_or_scrolling_sideways(tmp_path, a_result):
    long = "a_scan_with_a_name_that_goes_on_and_on_" * 6
    result = a_result()
    result = replace(result, scans=(replace(result.scans[0], name=long), *result.scans[1:]), reference=long)
    path = write_report(result, tmp_path, MADE, view_lines=["fsleyes " + long])
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", QUESTIONS), encoding="utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    words.append("--window-size=1280,1600")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run([BROWSER, *words, profile, path.as_uri()], capture_output=True, text=True, timeout=120)
    answer = re.search(r'<p id="answer">(.*?)</p>', done.stdout)
    assert answer, done.stderr[-2000:]
    width, moves, fetched, where = answer[1].split("|")
    assert int(width) <= 1280
    assert (moves, fetched) == ("true", "0")
    assert "voxels marked" in where
    assert "CONSOLE" not in done.stderr
