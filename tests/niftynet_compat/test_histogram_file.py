"""The file of histogram landmarks and label maps."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from niftynet_compat.runs.histogram_file import (
    read_label_mapping,
    read_mapping,
    write_label_mapping,
    write_mapping,
)
from pimms_tf.errors import ConfigError

# The line of a published U-HeMIS model.
T2 = (
    "T2 0.0 20.626154 26.824974 28.08165 29.186394 31.342985 33.70432 36.45566 39.93386 42.244335 45.29694 "
    "56.169777 100.0"
)
LANDMARKS = np.linspace(0, 100, 13)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "hist.txt"


@given(
    st.dictionaries(
        st.text("abcT12_-", min_size=1),
        st.lists(st.floats(-1e6, 1e6), min_size=13, max_size=13).map(lambda values: np.array(sorted(values))),
        max_size=4,
    )
)
def test_written_landmarks_read_exactly_the_same(tmp_path_factory, mapping):
    assume(not any(key.endswith(("-from", "-to")) for key in mapping))
    file = tmp_path_factory.mktemp("m") / "h.txt"
    read = read_mapping(write_mapping(file, mapping))
    assert list(read) == list(mapping)
    for key, values in mapping.items():
        np.testing.assert_array_equal(read[key], values)


def test_a_published_line_is_read_and_written_back_unchanged(path):
    path.write_text(f"{T2}\n")
    landmarks = read_mapping(path)["T2"]
    assert landmarks.shape == (13,)
    assert landmarks.dtype == np.float64
    assert (landmarks[0], landmarks[1], landmarks[12]) == (0.0, 20.626154, 100.0)
    write_mapping(path, {"T2": landmarks})
    assert path.read_text() == f"{T2}\n"


def test_no_file_is_an_empty_mapping(path):
    assert read_mapping(path) == {}
    assert read_label_mapping(path, "label", "lesion") is None


def test_other_records_stay_in_place_and_the_old_file_is_kept_as_backup(path):
    old = f"T1 {' '.join(['0'] * 13)}\nlabel_lesion-from 0.0 3.0\nlabel_lesion-to 0 1\n{T2}\n"
    path.write_text(old)
    write_mapping(path, {"T1": LANDMARKS, "FLAIR": LANDMARKS})
    keys = [line.split()[0] for line in path.read_text().splitlines()]
    assert keys == ["T1", "label_lesion-from", "label_lesion-to", "T2", "FLAIR"]
    assert T2 in path.read_text()
    assert path.with_name("hist.txt.backup").read_text() == old
    np.testing.assert_array_equal(read_mapping(path)["T1"], LANDMARKS)


def test_label_maps_are_no_landmarks_in_either_spelling_but_a_modality_may_end_like_one(path):
    numbers = " ".join(map(str, range(13)))
    path.write_text(f"label_a-from 1 2\nlabel_a-to 0 1\nlabelbfrom {numbers}\nlabelbto {numbers}\nT1to {numbers}\n")
    assert list(read_mapping(path)) == ["T1to"]


@pytest.mark.parametrize(
    "text",
    ["label_Label-from 0.0 2.0 7.0 40.0\nlabel_Label-to 0 1 2 3\n", "labelLabelto 0 1 2 3\nlabelLabelfrom 0 2 7 40\n"],
)
def test_both_spellings_of_a_label_map_are_read(path, text):
    path.write_text(text)
    mapping = read_label_mapping(path, "label", "Label")
    assert mapping.source.tolist() == [0.0, 2.0, 7.0, 40.0]
    assert mapping.target.tolist() == [0, 1, 2, 3]
    assert mapping.target.dtype == np.int32
    assert read_label_mapping(path, "label", "other") is None


def test_the_newer_spelling_wins_and_writing_removes_the_older(path):
    path.write_text(f"labelLfrom 0 5\nlabelLto 0 1\n{T2}\nlabel_L-from 0 6\nlabel_L-to 0 1\n")
    assert read_label_mapping(path, "label", "L").source.tolist() == [0.0, 6.0]
    write_label_mapping(path, "label", "L", np.array([0, 2, 7, 40]), np.array([0, 1, 1, 1]))
    assert path.read_text() == f"{T2}\nlabel_L-from 0.0 2.0 7.0 40.0\nlabel_L-to 0 1 1 1\n"


def test_a_section_name_with_a_blank_can_have_a_label_map(path):
    write_label_mapping(path, "label", "my lesions", [0, 1], [0, 1])
    assert read_label_mapping(path, "label", "my lesions").target.tolist() == [0, 1]


@given(st.lists(st.floats(-1e3, 1e3), unique=True, max_size=6))
def test_a_written_label_map_reads_the_same(tmp_path_factory, values):
    file = tmp_path_factory.mktemp("m") / "h.txt"
    write_label_mapping(file, "label", "L", values, range(len(values)))
    mapping = read_label_mapping(file, "label", "L")
    assert mapping.source.tolist() == values
    assert mapping.target.tolist() == list(range(len(values)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("T1 0 1 2\n", "line 1: the landmarks of T1 have 3 values instead of 13; delete the line"),
        (f"T1 {'0 ' * 12}x\n", "line 1: the landmarks of T1 are not all numbers"),
        (f"T1 {'0 ' * 12}nan\n", "do not ascend"),
        (f"T1 5 {'0 ' * 12}\n", "do not ascend"),
        (f"{T2}\n{T2}\n", "line 2: the record T2 stands in line 1 already"),
    ],
)
def test_faulty_landmarks_are_refused_with_their_line(path, text, words):
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_mapping(path)


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("0 1 2", "0 1", "has 3 values but label_L-to has 2"),
        ("0 1", "0 1.5", "leads to 1.5, not a whole number"),
        ("0 0", "0 1", "has the value 0 twice"),
        ("0 a", "0 1", "are not all numbers"),
    ],
)
def test_faulty_label_maps_are_refused(path, source, target, words):
    path.write_text(f"label_L-from {source}\nlabel_L-to {target}\n")
    with pytest.raises(ConfigError, match=words):
        read_label_mapping(path, "label", "L")


def test_what_cannot_be_written_is_refused_and_nothing_is_written(path):
    with pytest.raises(ConfigError, match=r"landmarks of T1 have shape \(3,\) instead of \(13,\)"):
        write_mapping(path, {"T1": np.zeros(3)})
    with pytest.raises(ConfigError, match="cannot be called 'my T1'; rename the section"):
        write_mapping(path, {"my T1": LANDMARKS})
    with pytest.raises(ConfigError, match="differ in shape"):
        write_label_mapping(path, "label", "L", [0, 1], [0])
    assert not path.exists()


def test_a_file_that_is_no_text_is_refused(path):
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        read_mapping(path)
