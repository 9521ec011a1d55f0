"""`pimms-tf simulate`: its hospitals, what it refuses, and that its configurations find all that it wrote."""

from pathlib import Path

import numpy as np
import pytest

from niftynet_compat import find_subjects, load_config
from pimms_tf.commands.demo import shipped_config
from pimms_tf.commands.simulate import CONFIGS, config_for, simulated_hospitals, write_simulation
from pimms_tf.errors import InputError
from pimms_tf.simulation import Hospital, Protocol, SimulatedSubject, write_hospitals, write_subject

T1 = Protocol("T1", "gradient echo", 3.0, 20.0, 4.0, flip_deg=25.0)
FLAIR = Protocol("FLAIR", "inversion recovery", 3.0, 9000.0, 120.0, 2480.0)


def test_equal_seeds_draw_equal_hospitals_and_wishes_are_followed():
    one, same, other = (simulated_hospitals("3", seed, ("T1", "PD"), "stripped", [2.0]) for seed in (1, 1, 2))
    assert one == same != other
    for hospital in one:
        assert [protocol.contrast for protocol in hospital.protocols] == ["T1", "PD"]
        assert (hospital.head, hospital.grid_mm) == ("stripped", (2.0, 2.0, 2.0))
    assert len({hospital.protocols for hospital in simulated_hospitals("5", 0, ("usual",))}) == 5
    assert simulated_hospitals("1", 0, spacing_mm=[1, 1, 5])[0].grid_mm == (1.0, 1.0, 5.0)


def test_hospitals_are_read_from_a_file(tmp_path):
    hospital = Hospital("mine", (T1, FLAIR))
    write_hospitals(tmp_path / "h.json", [hospital])
    assert simulated_hospitals(str(tmp_path / "h.json"), 0) == (hospital,)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("0", 0), "give 1 or more"),
        (("no.json", 0), "no.json cannot be read"),
        (("1", 0, ("T1", "T7")), "T7 is none of T1, T1ce, T2"),
        (("1", 0, ("T1",), "shaved"), "shaved is none of kept"),
        (("1", 0, ("T1",), None, [1, 1, 60.0]), "60 is not between 0.5 and 10"),
        (("1", 0, ("T1",), None, [1, 5]), "2 numbers; give one edge for all axes, or three"),
    ],
)
def test_impossible_wishes_end_as_one_sentence(words, says):
    with pytest.raises(InputError, match=says):
        simulated_hospitals(*words)


def test_nothing_is_written_over_anything_or_for_wrong_options(tmp_path):
    (tmp_path / "mine").write_text("mine")
    hospitals = (Hospital("mine", (T1, FLAIR)),)
    with pytest.raises(InputError, match="not an empty folder"):
        write_simulation(tmp_path, 1, hospitals)
    (tmp_path / "stopped" / "data").mkdir(parents=True)
    with pytest.raises(InputError, match="as after a simulation that was stopped"):
        write_simulation(tmp_path / "stopped", 1, hospitals)
    with pytest.raises(InputError, match="0 subjects: give 1 or more"):
        write_simulation(tmp_path / "new", 0, hospitals)
    with pytest.raises(InputError, match="nowhere is no folder"):
        write_simulation(tmp_path / "new", 1, hospitals, lesion_masks=tmp_path / "nowhere")
    with pytest.raises(InputError, match="smallest and a largest"):
        write_simulation(tmp_path / "new", 1, hospitals, load_ml=(5, 1))
    assert not (tmp_path / "new").exists()


def test_for_three_usual_scans_the_shipped_configurations_only_learn_to_pass_over_sidecars():
    text = shipped_config("hemis.ini")
    made = config_for(text, simulated_hospitals("2", 0))
    assert made.count(".json") == 4
    assert made.replace("filename_not_contains = .json\n", "").replace(",.json", "") == text


def test_configurations_find_every_scan_of_every_hospital(tmp_path, monkeypatch):
    hospitals = (
        Hospital("many", (T1, T1, FLAIR, Protocol("T1ce", "spin echo", 3.0, 600.0, 10.0)), "stripped", (9.0, 9.0, 9.0)),
        Hospital("few", (FLAIR, Protocol("PD", "spin echo", 1.5, 3000.0, 20.0)), "stripped", (9.0, 9.0, 9.0)),
    )
    for subject_id, hospital in zip(("sim01", "sim02"), hospitals, strict=True):
        shape = (2, 2, 2, len(hospital.protocols))
        nothing = np.zeros(shape[:3], bool)
        scans = np.ones(shape, np.float32)
        one = SimulatedSubject(subject_id, "", scans, hospital.protocols, hospital, *[nothing] * 3, np.eye(4))
        write_subject(tmp_path / "data", one)
    monkeypatch.chdir(tmp_path)
    for name in CONFIGS:
        Path(name).write_text(config_for(shipped_config(name), hospitals), encoding="utf-8")
        config = load_config(Path(name))
        found = {one.subject_id: set(one.images) - {"lesion"} for one in find_subjects(config.inputs)}
        assert found == {"sim01": {"T1", "rep2-T1", "FLAIR", "T1ce"}, "sim02": {"FLAIR", "PD"}}, name
    text = Path("hemis.ini").read_text(encoding="utf-8")
    assert "image = T1,rep2-T1,T1ce,FLAIR,PD\n" in text
    assert "modalities = T1,FLAIR,other\nimage_modalities = T1,T1,T1,FLAIR,other\n" in text
