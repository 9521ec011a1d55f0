"""Command lines of NiftyNet and of the fork's scripts: every shape they have, and every way to get one wrong."""

import itertools
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niftynet_compat.settings.command_line import (
    Asked,
    Call,
    Leftover,
    is_value,
    join_signed,
    option_words,
    parse_command,
    split_config,
    take_options,
)
from pimms_tf.errors import ConfigError, UsageError

HEMIS = "niftynet.contrib.pimms.3D_HeMIS_application.SegmentationApplication"
PIMMS = "niftynet.contrib.pimms.3D_HeMIS_single_segmentation_application.SegmentationApplication"
# Sections in the order of the fork's files, and the keys of its scripts with whether the key alone means True.
SECTIONS = [
    ("SYSTEM", {"dataset_split_file": False, "model_dir": False}),
    ("NETWORK", {"volume_padding_size": False, "whitening": True}),
    ("TRAINING", {"lr": False, "rotation_angle": False, "starting_iter": False}),
    ("SEGMENTATION", {"idxs_to_drop": False, "permuted_indices": False, "image": False}),
    ("INFERENCE", {"inference_iter": False, "save_seg_dir": False}),
]
START = f"CUDA_VISIBLE_DEVICES=2 python3.6 net_run.py inference -c X.ini --app {PIMMS}"


def parsed(line):
    return parse_command(shlex.split(line))


def taken(line):
    given, rest = take_options(shlex.split(line), SECTIONS)
    assert rest == []
    return {key: text for keys in given.values() for key, text in keys.items()}


# ---- the program, its action and its file


@pytest.mark.parametrize(
    ("line", "program", "application"),
    [
        ("net_segment train -c x.ini", "net_segment", "net_segment"),
        ("/usr/bin/net_segment.py train -c x.ini", "net_segment", "net_segment"),
        ("net_classify train -c x.ini", "net_classify", "net_classify"),
        ("net_segment train -c x.ini -a nobody.knows.This", "net_segment", "net_segment"),
        ("net_run train -c x.ini -a net_segment", "net_run", "net_segment"),
        ("python net_run.py train -a net_classify -c x.ini", "net_run", "net_classify"),
        (f"whatever train -c x.ini -a {HEMIS}", "whatever", HEMIS),
    ],
)
def test_the_application_is_the_programs_own_or_the_word_after_a(line, program, application):
    assert parsed(line) == Call(program, "training", application, "x.ini")


@pytest.mark.parametrize(
    ("word", "action"),
    [
        ("train", "training"),
        ("training", "training"),
        ("inference", "inference"),
        ("infer", "inference"),
        ("evaluation", "evaluation"),
        ("evaluate", "evaluation"),
        ("eval", "evaluation"),
    ],
)
def test_an_action_has_aliases(word, action):
    assert parsed(f"net_segment {word} -c x.ini").action == action
    assert parsed(f"net_segment -c x.ini {word}").action == action


@pytest.mark.parametrize(
    "config", ["-c x.ini", "-cx.ini", "-c=x.ini", "--c x.ini", "--con x.ini", "--conf x.ini", "--conf=x.ini"]
)
@pytest.mark.parametrize("application", ["-a net_segment", "--app net_segment", "--application_name=net_segment"])
def test_meta_options_may_be_shortened_and_stand_anywhere(config, application):
    expected = Call("net_run", "training", "net_segment", "x.ini", ("--lr", "0.5"))
    for words in itertools.permutations([config, application, "train"]):
        assert parsed(f"net_run {' '.join(words)} --lr 0.5") == expected
    assert parsed(f"net_run train --lr 0.5 {config} {application}") == expected
    assert parsed(f"net_run train --lr {config} 0.5 {application}") == expected


def test_the_action_comes_before_options_that_have_a_value():
    assert parsed("net_segment -c x.ini train --lr 0.5").options == ("--lr", "0.5")
    assert parsed("net_segment --lr=0.5 train -c x.ini").options == ("--lr=0.5",)
    with pytest.raises(UsageError, match="0.5 stands where the action belongs; write the action before --lr 0.5"):
        parsed("net_segment --lr 0.5 train -c x.ini")


@pytest.mark.parametrize("word", ["-v", "--version", "--vers"])
def test_the_version_may_be_asked_for(word):
    assert parsed(f"net_segment {word}") == Asked("net_segment", "version")


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_may_be_asked_for_even_behind_a_call(word):
    assert parsed(f"net_segment train -c x.ini {word}") == Asked("net_segment", "help")


def test_debug_is_no_key_of_a_section():
    assert parsed("net_segment train -c x.ini --debug --lr 1") == Call(
        "net_segment", "training", "net_segment", "x.ini", ("--lr", "1"), debug=True
    )


def test_a_missing_file_is_left_to_whoever_opens_it():
    assert parsed("net_segment train").config is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "the command line is empty"),
        ("net_segment", "no action is given; write net_segment train|inference|evaluation -c CONFIG.ini"),
        ("net_run -c x.ini", "no action is given; write net_run train|inference|evaluation -a APPLICATION -c"),
        ("net_segment trian -c x.ini", "trian is not an action of net_segment; did you mean train?"),
        ("net_segment export -c x.ini", "export is not an action of net_segment; choose train"),
        ("net_segment 17 -c x.ini", "17 is not an action of net_segment; choose train, inference or evaluation"),
        ("net_segment train -c", "-c has no value behind it"),
        ("net_segment train -c --lr 1", "-c has no value behind it"),
        ("net_run train -c x.ini --app", "--app has no value behind it"),
    ],
)
def test_a_wrong_call_is_refused_in_one_sentence(line, says):
    with pytest.raises(UsageError) as caught:
        parsed(line)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("net_run train -c x.ini", "net_run does not know which application is meant; add -a net_segment"),
        ("net_run train -c x.ini -a net_regress", "-a net_regress is not available"),
        ("net_run train -c x.ini -a net_segmnt", "did you mean net_segment?"),
        ("net_regress train -c x.ini", "net_regress is not built here: this package has net_segment and net_classify"),
        ("net_autoencoder train -c x.ini", "net_autoencoder is not built here"),
        ("net_gan train -c x.ini", "net_gan is not built here"),
    ],
)
def test_an_application_that_is_not_here_is_refused_in_one_sentence(line, says):
    with pytest.raises(ConfigError) as caught:
        parsed(line)
    assert says in str(caught.value)
    assert not isinstance(caught.value, UsageError)


# ---- the fork's scripts


FORK_OPTIONS = {
    "dataset_split_file": "S.csv",
    "inference_iter": "57900",
    "volume_padding_size": "0,0,16",
    "idxs_to_drop": "0,1",
    "permuted_indices": "1,2,0",
    "model_dir": "D",
    "save_seg_dir": "./output/x",
}
FORK_LINES = [
    # Each option of the scripts alone, all of them, and all orders in which three of them occur.
    *(f"{START} --{key} {text}" for key, text in FORK_OPTIONS.items()),
    *(f"{START.replace(PIMMS, HEMIS)} --{key}={text}" for key, text in FORK_OPTIONS.items()),
    START + "".join(f" --{key} {text}" for key, text in FORK_OPTIONS.items()),
    START + "".join(f" --{key} {text}" for key, text in reversed(FORK_OPTIONS.items())),
    *(
        START + "".join(f" --{key} {FORK_OPTIONS[key]}" for key in keys)
        for keys in itertools.permutations(["dataset_split_file", "idxs_to_drop", "save_seg_dir"])
    ),
    f"{START} --permuted_indices 2,0,1 --inference_iter -1 --save_seg_dir ./o",
    f"{START} --permuted_indices 0,1,2 --inference_iter -1 --save_seg_dir ./o",
    # The value of an option behind another option and its value.
    f"{START} --dataset_split_file S.csv --save_seg_dir --permuted_indices 1,2,0 ./output/x",
    f"{START} --save_seg_dir --dataset_split_file S.csv --permuted_indices 1,2,0 ./output/x --idxs_to_drop 0",
    f"{START} --inference_iter --volume_padding_size 0,0,16 57900 --save_seg_dir ./output/x",
    # The shape of one whole line.
    f"{START} --dataset_split_file S.csv --inference_iter 57900 --volume_padding_size 0,0,16 --idxs_to_drop 0,1 "
    "--permuted_indices 1,2,0 --model_dir D --save_seg_dir ./output/x",
    f"{START} --dataset_split_file S.csv --inference_iter 57900 --volume_padding_size 0,0,16 --save_seg_dir ./output/x",
]


@pytest.mark.parametrize("line", FORK_LINES)
def test_a_line_of_the_forks_scripts_is_one_call_whose_options_all_find_a_section(line):
    call = parsed(line)
    application = HEMIS if HEMIS in line else PIMMS
    assert call == Call(
        "net_run", "inference", application, "X.ini", call.options, environment=(("CUDA_VISIBLE_DEVICES", "2"),)
    )
    given = taken(shlex.join(call.options))
    assert given
    for key, text in given.items():
        assert text == FORK_OPTIONS[key] or text in ("2,0,1", "0,1,2", "-1", "./o", "0"), key
        assert f"--{key}" in line
        assert text in line
    assert len(given) == line.count(" --") - 1  # all but --app


def test_the_lines_of_the_scripts_also_say_themselves_to_pimms_tf():
    call = parsed(FORK_LINES[0])
    assert call.pimms_tf() == ["pimms-tf", "inference", "-c", "X.ini", "-a", PIMMS, "--dataset_split_file", "S.csv"]
    assert parsed("net_segment train --debug").pimms_tf() == ["pimms-tf", "train", "-a", "net_segment", "--debug"]


# ---- options


def test_sections_take_options_one_after_the_other():
    line = "--save_seg_dir --permuted_indices 1,2,0 ./o"
    assert take_options(shlex.split(line), SECTIONS) == (
        {"SEGMENTATION": {"permuted_indices": "1,2,0"}, "INFERENCE": {"save_seg_dir": "./o"}},
        [],
    )
    # Where the section of the first option comes first in the file, its value is not behind it yet.
    with pytest.raises(UsageError, match="--save_seg_dir has no value behind it; --permuted_indices stands there"):
        take_options(shlex.split(line), SECTIONS[::-1])


def test_the_first_section_that_knows_a_key_takes_it_and_its_last_value():
    keys = [("A", {"lr": False}), ("B", {"lr": False, "decay": False})]
    assert take_options(["--lr", "1", "--decay", "2", "--lr=3"], keys)[0] == {"A": {"lr": "3"}, "B": {"decay": "2"}}


def test_names_are_exact():
    given, rest = take_options(["--starting", "1", "--image", "T1"], SECTIONS)
    assert (given, rest) == ({"SEGMENTATION": {"image": "T1"}}, [Leftover("starting", "1")])


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("--starting_iter -1", "-1"),
        ("--starting_iter=-1", "-1"),
        ("--lr -1e-3", "-1e-3"),
        ("--rotation_angle=-10,10", "-10,10"),
        ("--rotation_angle '(-10,10)'", "(-10,10)"),
        ("--rotation_angle '-10, 10'", "-10, 10"),
        ("--save_seg_dir=", ""),
        ("--save_seg_dir ''", ""),
        ("--save_seg_dir a=b", "a=b"),
        ("--save_seg_dir=a=b", "a=b"),
        ("--whitening", "True"),
        ("--whitening no", "no"),
    ],
)
def test_a_value_is_the_next_word_unless_it_looks_like_an_option(line, value):
    assert list(taken(line).values()) == [value]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--rotation_angle -10,10", "write --rotation_angle=-10,10"),
        ("--lr", "--lr has no value behind it; write --lr VALUE"),
        ("--lr --image T1", "--lr has no value behind it"),
        ("--lr -x", "--lr has no value behind it; -x stands there"),
    ],
)
def test_an_option_without_value_is_refused(line, says):
    # The section of `image` comes after that of `lr`.
    with pytest.raises(UsageError) as caught:
        take_options(shlex.split(line), SECTIONS)
    assert says in str(caught.value)


def test_what_no_section_takes_is_left_with_the_word_behind_it():
    words = ["--noise_size", "3", "stray", "--image", "T1", "--flag", "-x", "--a=b", "--end"]
    assert take_options(words, SECTIONS) == (
        {"SEGMENTATION": {"image": "T1"}},
        [
            Leftover("noise_size", "3"),
            Leftover("", "stray"),
            Leftover("flag", ""),
            Leftover("", "-x"),
            Leftover("a", "b"),
            Leftover("end", ""),
        ],
    )


KEYS = [key for _, keys in SECTIONS for key in keys]


@given(st.dictionaries(st.sampled_from(KEYS), st.text(max_size=9)))
def test_a_mapping_written_as_words_is_taken_unchanged_whatever_its_texts(overrides):
    given, rest = take_options(option_words(overrides), SECTIONS)
    assert rest == []
    assert {key: text for keys in given.values() for key, text in keys.items()} == overrides


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(["1", "-1", "a b", "x,y"])), unique_by=lambda p: p[0]))
def test_options_give_the_same_in_any_order_and_spelling(pairs):
    expected = dict(pairs)
    apart = [word for key, text in pairs for word in (f"--{key}", text)]
    joined = option_words(dict(reversed(pairs)))
    for words in (apart, joined):
        given, rest = take_options(words, SECTIONS)
        assert (rest, {key: text for keys in given.values() for key, text in keys.items()}) == ([], expected)


# ---- what pimms-tf adds


@pytest.mark.parametrize(
    ("line", "config", "rest"),
    [
        ("x.ini", "x.ini", []),
        ("x.ini --lr 1", "x.ini", ["--lr", "1"]),
        ("--lr 1 x.ini", "x.ini", ["--lr", "1"]),
        ("--lr=1 x.ini", "x.ini", ["--lr=1"]),
        ("--lr -1 x.ini", "x.ini", ["--lr", "-1"]),
        ("x.ini y.ini", "x.ini", ["y.ini"]),
        ("--lr 1", None, ["--lr", "1"]),
        ("", None, []),
        ("x.ini --save_seg_dir --permuted_indices 1,2,0 ./o", "x.ini", None),
    ],
)
def test_the_word_that_belongs_to_no_option_is_the_configuration(line, config, rest):
    words = shlex.split(line)
    assert split_config(words) == (config, words[1:] if rest is None else rest)


def test_numbers_that_begin_with_a_minus_can_be_joined_to_their_option():
    assert join_signed(["--rotation_angle", "-10,10", "--lr", "-1", "-.5,1"]) == [
        "--rotation_angle=-10,10",
        "--lr",
        "-1",
        "-.5,1",
    ]
    assert join_signed(["--a=1", "-1,1", "--b", "-x"]) == ["--a=1", "-1,1", "--b", "-x"]


@pytest.mark.parametrize(("word", "yes"), [("-", True), ("-1", True), ("-1 x", True), ("-x", False), ("--x", False)])
def test_a_value_may_begin_with_a_minus_only_if_it_is_a_number_or_has_a_blank(word, yes):
    assert is_value(word) is yes
