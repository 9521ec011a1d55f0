"""Writing a configuration out and reading it again."""

import dataclasses
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from niftynet_compat import ini
from niftynet_compat.schema import sections
from niftynet_compat.schema.keys import pair
from niftynet_compat.settings.config import load_config
from niftynet_compat.settings.writing import absolute_paths, ini_text, settings_text
from pimms_tf.errors import ConfigError

BASE = "[A]\n{a}[B]\n[SYSTEM]\n{system}[NETWORK]\nname = hemis\n{network}[TRAINING]\n{training}[INFERENCE]\n{inference}"
BASE += "[EVALUATION]\n{evaluation}[SEGMENTATION]\nimage = A\nlabel = B\nnum_classes = 2\n{task}[PIMMS]\n{pimms}"
PARTS = {
    "a": sections.InputSection,
    "system": sections.SystemSection,
    "network": sections.NetworkSection,
    "training": sections.TrainingSection,
    "inference": sections.InferenceSection,
    "evaluation": sections.EvaluationSection,
    "task": sections.SegmentationSection,
    "pimms": sections.PimmsSection,
}
GIVEN = ("name", "num_classes", "reference", "modalities", "image_modalities", "volume_padding_to_size")
SPECIAL = {
    "axcodes": st.sampled_from(["R,A,S", "(L, P, S)", "(A, R, S)"]),
    "pixdim": st.sampled_from(["1,1,1", "0.5, 1e-3, 2.5,7"]),
    "cutoff": st.sampled_from(["0.01,0.99", "(0, 0.5)"]),
    "random_flipping_axes": st.sampled_from(["-1", "0,1", "2"]),
    "filename_removefromid": st.sampled_from(["_T1.*", "^sub-(?=[0-9])", "a%%b", '"x ; y"', "é=:[]"]),
}
# An INI file cannot name a folder that ends in a blank.
TEXT = st.text("abAB0 _-./:%;#\"'=[](){}~,é", max_size=12).filter(lambda text: " /" not in text and " ," not in text)
WORDS = st.lists(st.text("abAB01 _-.:\\", max_size=5), max_size=4).map(",".join)
WHOLE = st.integers(0, 10**18)
REAL = st.floats(-1e17, 1e17)


def texts_of(spec):
    """Texts that the key accepts, in the spellings a user may choose."""
    if spec.name in SPECIAL:
        return SPECIAL[spec.name]
    if spec.several:
        return st.lists(st.sampled_from(spec.choices), min_size=1, max_size=3).map(" , ".join)
    if spec.choices:
        return st.sampled_from([change(word) for word in spec.choices for change in (str, str.upper)])
    low = -50 if spec.low is None else spec.low
    high = 50 if spec.high is None else spec.high
    if spec.check is pair:
        return st.lists(REAL, min_size=2, max_size=2).map(lambda pair: f"({pair[0]:f}, {pair[1]:.3f})")
    return {
        ini.to_int: st.integers(int(low), int(high)).map(str),
        ini.to_float: st.floats(low, high).map(repr),
        ini.to_bool: st.sampled_from(["yes", "F", "1", "False"]),
        ini.to_strs: WORDS,
        ini.to_ints: st.lists(WHOLE, max_size=4).map(lambda values: ",".join(map(str, values))),
        ini.to_window: st.lists(st.integers(-1, 200), max_size=4).map(lambda values: ",".join(map(str, values))),
        ini.to_spatial3: st.lists(WHOLE, max_size=4).map(lambda values: ",".join(map(str, values))),
        ini.to_str: TEXT,
    }[spec.parse]


@st.composite
def inis(draw):
    blocks = {}
    for part, section in PARTS.items():
        specs = [
            spec for spec in sections.key_specs(section).values() if spec.name not in GIVEN and not spec.names_sections
        ]
        chosen = draw(st.lists(st.sampled_from(specs), max_size=4, unique_by=lambda spec: spec.name))
        blocks[part] = "".join(f"{spec.name} = {draw(texts_of(spec))}\n" for spec in chosen)
    return BASE.format(**blocks)


@settings(max_examples=150, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow], deadline=None)
@given(inis())
def test_a_configuration_written_as_ini_loads_equal(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("c")
    (folder / "a.ini").write_text(text, encoding="utf-8")
    try:
        config = absolute_paths(load_config(folder / "a.ini"))
    except ConfigError:
        assume(False)
    again = reloaded(config, folder / "elsewhere" / "b.ini")
    assert dataclasses.replace(again, path=config.path, remarks=config.remarks) == config
    assert not [remark for remark in again.remarks if "no effect here" in remark.text]


def reloaded(config, path):
    path.parent.mkdir(exist_ok=True)
    path.write_text(ini_text(config), encoding="utf-8")
    return load_config(path)


def test_every_key_of_every_section_survives_with_a_value_that_is_not_its_default(tmp_path):
    lines = dict.fromkeys(PARTS, "")
    for part, section in PARTS.items():
        for spec in sections.key_specs(section).values():
            if spec.name in GIVEN or spec.names_sections:
                continue
            if spec.name in SPECIAL or spec.choices:
                value = {"axcodes": "R,A,S", "pixdim": "1,2,3", "cutoff": "0.1,0.5", "random_flipping_axes": "1"}.get(
                    spec.name, [word for word in (*spec.choices, "x") if word != spec.default][0]
                )
            else:
                value = {
                    ini.to_bool: str(not spec.default),
                    ini.to_float: str((spec.low or 0) + 0.125),
                    ini.to_int: "3" if spec.default != 3 and spec.high != 1 else "1",
                }.get(
                    spec.parse,
                    "7,8" if spec.parse in (ini.to_floats, ini.to_ints, ini.to_window, ini.to_spatial3) else "x",
                )
            lines[part] += f"{spec.name} = {value}\n"
    (tmp_path / "a.ini").write_text(BASE.format(**lines))
    config = absolute_paths(load_config(tmp_path / "a.ini"))
    for part, section in PARTS.items():
        ours = {"a": config.inputs["A"], "task": config.task}.get(part) or getattr(config, part)
        for spec in sections.key_specs(section).values():
            if f"{spec.name} = " in lines[part]:
                assert getattr(ours, spec.name) != spec.default, spec.name
    again = reloaded(config, tmp_path / "sub" / "b.ini")
    assert dataclasses.replace(again, path=config.path, remarks=config.remarks) == config


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = BASE.format(
        a="path_to_search = ./d , e\naxcodes = R,A,S\n",
        system="model_dir = m\n",
        network="",
        training="lr = 0.5\n",
        inference="",
        evaluation="",
        task="",
        pimms="segmenter = s\n",
    )
    (tmp_path / "a.ini").write_text(text)
    return load_config(tmp_path / "a.ini", {"batch_size": "9"}, action="train")


def test_relative_paths_are_written_from_the_root_so_that_the_file_can_be_kept_anywhere(config, tmp_path, monkeypatch):
    (tmp_path / "far").mkdir()
    monkeypatch.chdir(tmp_path / "far")
    again = reloaded(config, tmp_path / "far" / "b.ini")
    assert again.inputs["A"].path_to_search == f"{tmp_path}/d, {tmp_path}/e"
    assert again.model_dir == config.model_dir == tmp_path / "m"
    assert again.save_seg_dir == config.save_seg_dir
    assert again.segmenter_dir == tmp_path / "s"
    assert again.network.batch_size == 9


def test_unset_choices_of_the_preset_stay_out_of_the_ini(config):
    text = ini_text(config)
    assert "None" not in text
    assert "\nnorm =" not in text
    assert "\nlr = 0.5\n" in text


def test_a_choice_without_mapping_file_stays_without(tmp_path):
    blocks = dict.fromkeys(PARTS, "") | {"network": "histogram_ref_file =\n", "inference": "output_postfix = \n"}
    (tmp_path / "a.ini").write_text(BASE.format(**blocks))
    again = reloaded(load_config(tmp_path / "a.ini"), tmp_path / "b.ini")
    assert again.histogram_file is None
    assert again.inference.output_postfix == ""


def test_the_settings_list_has_niftynets_grammar(config, tmp_path):
    lines = settings_text(config, datetime(2018, 7, 4, 9, 8, 7)).splitlines()
    assert lines[:3] == ["Input params at 2018-07-04 09:08:07.", "[CUSTOM]", "-- image: ('A',)"]
    headers = [line for line in lines if line.startswith("[")]
    assert headers[:6] == ["[CUSTOM]", "[CONFIG_FILE]", "[A]", "[B]", "[SYSTEM]", "[NETWORK]"]
    assert headers[6:] == ["[TRAINING]", "[INFERENCE]", "[EVALUATION]", "[PIMMS]"]
    assert lines[lines.index("[CONFIG_FILE]") + 1] == f"-- path: {tmp_path}/a.ini"
    for line in ("-- lr: 0.5", "-- action: training", "-- name: net_segment", "-- loader: None", "-- csv_file: "):
        assert line in lines
    assert all(line.startswith(("[", "-- ")) for line in lines[1:])


def test_the_settings_list_is_stamped_with_the_time_it_is_made(config):
    stamp = settings_text(config).splitlines()[0].removeprefix("Input params at ").removesuffix(".")
    assert abs((datetime.now() - datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S")).total_seconds()) < 60


RECORDED = Path(__file__).parents[1] / "goldens" / "09_endtoend"
# Written otherwise here: quotes are not part of a value, and an unset tuple is a tuple.
WRITTEN_OTHERWISE = {"cuda_devices": ('""', ""), "random_flipping_axes": ("-1", "(-1,)")}


@pytest.mark.parametrize(
    ("action", "file", "options"),
    [
        ("training", "e2e.ini", {"starting_iter": "-1", "max_iter": "25"}),
        ("inference", "e2e.ini", {"output_prob": "True", "save_seg_dir": "./out_prob"}),
        ("evaluation", "e2e_explicit.ini", {}),
    ],
)
def test_every_line_of_a_recorded_settings_list_is_in_ours_under_the_same_header(action, file, options, monkeypatch):
    monkeypatch.chdir(RECORDED)
    config = load_config(file, options, "net_segment", action)
    recorded = (RECORDED / f"model__settings_{action}.txt").read_text().replace("<DIR>", str(RECORDED))
    ours, theirs = (by_header(text) for text in (settings_text(config), recorded))
    assert [header for header in ours if header != "PIMMS"] == list(theirs)
    for header, values in theirs.items():
        for key, text in values.items():
            assert ours[header][key] == text or (text, ours[header][key]) == WRITTEN_OTHERWISE[key], (header, key)


def by_header(text):
    found, header = {}, ""
    for line in text.splitlines()[1:]:
        if line.startswith("["):
            header = line.strip("[]")
            found[header] = {}
        else:
            key, _, value = line.removeprefix("-- ").partition(": ")
            found[header][key] = value
    return found
