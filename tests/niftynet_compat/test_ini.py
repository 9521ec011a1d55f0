"""The INI grammar and the grammar of values."""

import configparser
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niftynet_compat import ini
from niftynet_compat.spelling import nearest
from pimms_tf.errors import ConfigError


def entries(text):
    return {
        section.name: {key: entry.text for key, entry in section.entries.items()} for section in read(text).sections
    }


def read(text):
    return ini.parse_ini(text, "a.ini")


LINES = st.sampled_from(
    ["[A]", "[B]", "[DEFAULT]", "  [C]", "[D", "x = 1", "X: 2", "y=%(x)s", "y = 5%%", "y = %", "  z = 3", "z =", "z"]
    + ["# c", "; c", "  # c", "", "   ", "k = %(nope)s", "\tw = a = b", "= 3", "[A] tail", "x = a:b", "m = %(m)s"]
)


@given(st.lists(LINES, max_size=12))
def test_sections_keys_and_values_are_those_of_configparser_which_refuses_what_we_refuse(lines):
    text = "\n".join(lines)
    theirs = configparser.ConfigParser()
    try:
        theirs.read_string(text)
        expected = {name: dict(theirs[name]) for name in theirs.sections()}
    except configparser.Error:
        assert read(text).mistakes
    else:
        assert read(text).mistakes == ()
        assert entries(text) == expected


def test_every_section_and_key_knows_its_line_also_behind_comments_and_blank_lines():
    file = read("# note\n\n[A]\nx = 1\n\n; y = 2\nz = 3,\n  4\n[B]\nx = 5\n")
    a, b = file.sections
    assert (a.line, a.entries["x"].line, a.entries["z"].line, b.line, b.entries["x"].line) == (3, 4, 7, 9, 10)
    assert a.entries["z"].text == "3,\n4"
    assert a.entries["z"].continuations == ((8, "4"),)


@pytest.mark.parametrize(
    ("header", "name"),
    [("[ T1 ]", "T1"), ('["T1"]', "T1"), ("[T1.w/x]", "T1wx"), ("[T 2]", "T 2"), ("[a_b-c]", "a_b-c"), ("[T1!]", "T1")],
)
def test_section_names_keep_letters_digits_underscores_hyphens_and_inner_blanks(header, name):
    assert [section.name for section in read(f"{header}\n").sections] == [name]


def test_a_byte_order_mark_and_accents_are_read_whatever_the_locale(tmp_path):
    path = tmp_path / "a.ini"
    path.write_bytes("\ufeff[A]\nx = é\r\n".encode())
    assert ini.read_ini(path).sections[0].entries["x"].text == "é"


def test_one_pair_of_quotes_is_removed_with_a_remark_and_an_empty_pair_without():
    file = read('[A]\nx = "l.csv"\ny = \'\'\nz = "a ; b"\nw = it\'s\n')
    assert entries('[A]\nx = "l.csv"\ny = \'\'\nz = "a ; b"\nw = it\'s\n')["A"] == {
        "x": "l.csv",
        "y": "",
        "z": "a ; b",
        "w": "it's",
    }
    assert [(remark.key, remark.line) for remark in file.remarks] == [("x", 2), ("z", 4)]


def test_keys_of_the_default_section_appear_in_every_section_and_can_be_replaced():
    file = read("[DEFAULT]\nx = 1\n[A]\ny = %(x)s2\n[B]\nx = 7\ny = %(x)s2\n")
    assert entries("[DEFAULT]\nx = 1\n[A]\ny = %(x)s2\n[B]\nx = 7\ny = %(x)s2\n") == {
        "A": {"x": "1", "y": "12"},
        "B": {"x": "7", "y": "72"},
    }
    assert file.sections[0].entries["x"].inherited
    assert not file.sections[1].entries["x"].inherited


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("x = 1\n", ["a.ini, line 1", "before the first [section]"]),
        ("[A]\nx\n", ["a.ini, line 2", "'x' in [A]", "`key = value`"]),
        ("[A]\nx = 1\nX = 2\n", ["a.ini, line 3", "[A] x = 2", "line 2 already"]),
        ("[A]\n[A]\n", ["a.ini, line 2", "[A]", "line 1 already"]),
        ("[T1]\n[T1!]\n", ["a.ini, line 2", "[T1!]", "[T1] of line 1"]),
        ("[!!]\n", ["a.ini, line 1", "[!!]", "rename"]),
        ("[A]\nx = 50%\n", ["a.ini, line 2", "[A] x = 50%", "%%"]),
        ("[A]\nfolder = 1\nx = %(foldr)s\n", ["line 3", "%(foldr)s", "did you mean %(folder)s?"]),
        ("[A]\nx = %(x)s\n", ["line 2", "refers to itself"]),
        ("[A]\nx = 4 ; note\n", ["line 2", "[A] x = 4 ; note", "line of its own"]),
        ("[A]\nx = 4 # note\n", ["line 2", "comment behind the value"]),
    ],
)
def test_a_mistake_in_the_grammar_names_file_line_and_remedy(text, parts):
    (mistake,) = read(text).mistakes
    assert all(part in str(mistake) for part in parts), mistake


def test_all_mistakes_of_a_file_are_collected():
    assert len(read("x = 1\n[A]\ny\nz = %\n[A]\n").mistakes) == 4


def test_a_missing_and_an_unreadable_file_are_config_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.ini: there is no such file"):
        ini.read_ini(tmp_path / "no.ini")
    (tmp_path / "latin.ini").write_bytes(b"[A]\nx = \xe9\n")
    with pytest.raises(ConfigError, match=r"byte 8 is not UTF-8"):
        ini.read_ini(tmp_path / "latin.ini")
    with pytest.raises(ConfigError, match="cannot be read"):
        ini.read_ini(tmp_path)


REFUSED = None
LISTS = [
    # text, as words, as whole numbers, as numbers
    ("T1 , T2", ("T1", "T2"), REFUSED, REFUSED),
    ("(T1,T2)", ("T1", "T2"), REFUSED, REFUSED),
    ("{T1,T2}", ("T1", "T2"), REFUSED, REFUSED),
    ("", (), (), ()),
    ("()", (), (), ()),
    ("a b", ("a b",), REFUSED, REFUSED),
    ("a:b.c\\d", ("a:b.c\\d",), REFUSED, REFUSED),
    ("a/b", REFUSED, REFUSED, REFUSED),
    ("a*", REFUSED, REFUSED, REFUSED),
    ("T1;T2", REFUSED, REFUSED, REFUSED),
    ("'T1'", REFUSED, REFUSED, REFUSED),
    ("[T1]", REFUSED, REFUSED, REFUSED),
    ("a,", REFUSED, REFUSED, REFUSED),
    ("(a,)", REFUSED, REFUSED, REFUSED),
    ("(T1,T2", REFUSED, REFUSED, REFUSED),
    ("(a, )", ("a", ""), REFUSED, REFUSED),
    ("a, ,b", ("a", "", "b"), REFUSED, REFUSED),
    ("a,\nb", ("a", "b"), REFUSED, REFUSED),
    ("1, 2,3", ("1", "2", "3"), (1, 2, 3), (1.0, 2.0, 3.0)),
    ("1 2 3", ("1 2 3",), REFUSED, REFUSED),
    ("+1,2", ("+1", "2"), (1, 2), (1.0, 2.0)),
    ("1.0", ("1.0",), REFUSED, (1.0,)),
    ("1e-2", ("1e-2",), REFUSED, (0.01,)),
    ("1e+2", REFUSED, REFUSED, REFUSED),
    ("( )", ("",), REFUSED, REFUSED),
    ("(0.01, 0.99)", ("0.01", "0.99"), REFUSED, (0.01, 0.99)),
    ("(-10.0, 10.0)", ("-10.0", "10.0"), REFUSED, (-10.0, 10.0)),
]


@pytest.mark.parametrize("reader", [ini.to_strs, ini.to_ints, ini.to_floats])
@pytest.mark.parametrize("row", LISTS, ids=lambda row: repr(row[0]))
def test_lists_are_read_or_refused_as_in_niftynet(row, reader):
    expected = row[1 + [ini.to_strs, ini.to_ints, ini.to_floats].index(reader)]
    if expected is REFUSED:
        with pytest.raises(ValueError, match=r"list|comma|number"):
            reader(row[0])
    else:
        assert reader(row[0]) == expected


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        (ini.to_int, " -12 ", -12),
        (ini.to_int, "1_000", 1000),
        (ini.to_float, "3e-4", 3e-4),
        (ini.to_float, "1e+2", 100.0),
        (ini.to_float, ".5", 0.5),
        (ini.to_float, "inf", math.inf),
        (ini.to_bool, "YES", True),
        (ini.to_bool, "t", True),
        (ini.to_bool, "0", False),
        (ini.to_str, " a  b ", "a  b"),
        (ini.to_window, "64", (64, 1, 1)),
        (ini.to_window, "(64,32)", (64, 32, 1)),
        (ini.to_window, "1,2,3,4", (1, 2, 3, 4)),
        (ini.to_window, "-1", (-1, 1, 1)),
        (ini.to_window, "", (0, 1, 1)),
        (ini.to_spatial3, "5", (5, 5, 5)),
        (ini.to_spatial3, "(5,6)", (5, 6, 6)),
        (ini.to_spatial3, "1,2,3,4", (1, 2, 3)),
        (ini.to_spatial3, "", (0, 0, 0)),
    ],
)
def test_single_values_follow_the_table_of_types(reader, text, value):
    assert reader(text) == value


@pytest.mark.parametrize(
    ("reader", "text"),
    [(ini.to_int, text) for text in ("", "1e3", "10.0", "None")]
    + [(ini.to_float, text) for text in ("", "1,5", "None")]
    + [(ini.to_bool, text) for text in ("on", "off", "1.0", "", "None")],
)
def test_single_values_outside_the_grammar_are_refused(reader, text):
    with pytest.raises(ValueError, match="is n"):
        reader(text)


def test_the_nearest_spelling_counts_swaps_as_one_edit_and_gives_up_beyond_the_limit():
    assert nearest("dcie", ["dice", "dicing"]) == "dice"
    assert nearest("DICE", ["Dice"]) == "Dice"
    assert nearest("batch-size", ["border", "batch_size"]) == "batch_size"
    assert nearest("abcdef", ["uvwxyz"]) is None
    assert nearest("x", []) is None
    assert nearest("root", ["loss"]) is None


@pytest.mark.parametrize("leaf", ["", "x", "0123456789" * 100])
def test_references_that_multiply_are_refused_at_once_however_many_they_would_become(leaf):
    lines = [f"x{level} = {f'%(x{level + 1})s' * 10}" for level in range(8)]
    file = read("\n".join(["[A]", *lines, f"x8 = {leaf}"]))
    too_long = [mistake.text for mistake in file.mistakes]
    assert len(too_long) == {"": 0, "x": 4, "0123456789" * 100: 7}[leaf]
    assert all("65,536 characters once its references are replaced" in text for text in too_long)


def test_references_reach_as_deep_as_in_configparser():
    def chain(length):
        return "[A]\n" + "".join(f"x{n} = %(x{n + 1})s\n" for n in range(length)) + f"x{length} = 5\n"

    for length in (9, 10, 11):
        parser = configparser.ConfigParser()
        parser.read_string(chain(length))
        mistakes = read(chain(length)).mistakes
        try:
            assert parser["A"]["x0"] == "5"
            assert mistakes == ()
        except configparser.InterpolationDepthError:
            assert "more than 10 deep" in mistakes[0].text


def test_what_is_far_too_large_for_settings_is_not_read(tmp_path):
    path = tmp_path / "big.ini"
    with open(path, "wb") as file:
        file.truncate(2**33)
    with pytest.raises(ConfigError, match="more than 16,777,216 bytes, so it is no INI file"):
        ini.read_ini(path)


@pytest.mark.parametrize("line", ["a" + " " * 200_000 + "b", "[" * 200_000, "x = " + "(" * 200_000, "=" * 200_000])
def test_a_long_line_is_read_in_one_pass(line):
    # With a pattern that looks back at every blank this would take hours.
    file = read(f"[A]\n{line}\n")
    assert len(file.mistakes) == int(not line.startswith("x"))
