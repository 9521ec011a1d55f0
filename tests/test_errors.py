"""Mistakes as values: how they read, what they gather on their way up, and the tree of errors that carries them."""

import ast
import pickle
from pathlib import Path

import pytest

import pimms_tf.errors as errors
from niftynet_compat.settings.config import inspect_config
from pimms_tf.errors import ConfigError, InputError, Mistake, Remark, UsageError


@pytest.mark.parametrize(
    ("mistake", "line"),
    [
        (Mistake("is wrong", "TRAINING", "lr", "x", 3, Path("a.ini")), "a.ini, line 3: [TRAINING] lr = x is wrong"),
        (Mistake("is not a number", "TRAINING", "lr", "fast"), "--lr fast is not a number"),
        (Mistake("is not an option", key="lrr"), "--lrr is not an option"),
        (Mistake("requires the section [NETWORK]", path=Path("a.ini")), "a.ini: requires the section [NETWORK]"),
        (Mistake("holds no voxel", section="T1", subject="s7"), "subject s7, section [T1]: holds no voxel"),
        (Mistake("is empty", "T1", path=Path("x.nii"), subject="s7"), "subject s7, section [T1], x.nii: is empty"),
        (Mistake("no action is given"), "no action is given"),
    ],
)
def test_a_mistake_reads_with_as_much_of_its_place_as_is_known(mistake, line):
    assert str(mistake) == line
    assert str(InputError(mistake)) == line


def test_a_place_is_filled_in_where_it_was_not_known_and_kept_where_it_was():
    error = InputError("is empty", path=Path("x.nii")).within(subject="s7", section="T1", path=Path("other.nii"))
    assert str(error) == "subject s7, section [T1], x.nii: is empty"
    assert str(error.within(subject="s8")) == str(error)
    assert type(ConfigError("a").within(subject="s7")) is ConfigError


def test_an_error_holds_several_mistakes_and_says_each_once():
    error = ConfigError(Mistake("a", path=Path("x")), Mistake("b"), Mistake("b"))
    assert str(error) == "x: a\nb"
    assert [mistake.text for mistake in error.mistakes] == ["a", "b", "b"]


def test_an_error_comes_out_of_another_process_as_it_went_in():
    error = UsageError(Mistake("is wrong", "A", "b", "c", 3, Path("x")), subject="s7")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.mistakes, str(again)) == (UsageError, error.mistakes, str(error))


def test_the_tree_is_the_one_that_is_drawn_above_it():
    drawn = [line.split("── ")[1].split()[0] for line in errors.__doc__.splitlines() if "── " in line]
    classes = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, Exception)]
    assert drawn == [item.__name__ for item in classes]
    assert issubclass(UsageError, ConfigError)
    assert issubclass(ConfigError, InputError)
    assert all(item.exit_code == 2 for item in classes)


def test_words_that_cannot_be_read_are_told_from_values_that_are_wrong(tmp_path):
    path = tmp_path / "a.ini"
    path.write_text("[SYSTEM]\n[NETWORK]\nname = hemis\n[SEGMENTATION]\nnum_classes = 2\n[TRAINING]\nlr = fast\n")
    findings = inspect_config(path).findings
    assert [mistake.is_usage for mistake in findings.mistakes] == [True]
    with pytest.raises(UsageError):
        findings.raise_if_any()
    findings.mistake("something else")
    with pytest.raises(ConfigError) as caught:
        findings.raise_if_any()
    assert caught.type is ConfigError


def test_a_remark_reads_with_its_line():
    assert str(Remark("TRAINING", "lr", 3, "is large")) == "line 3: [TRAINING] lr is large"
    assert str(Remark("TRAINING", "", 0, "[TRAINING] is odd")) == "[TRAINING] is odd"


_ROOT = Path(__file__).parents[1]
_SAYING = {"InputError", "ConfigError", "UsageError", "Mistake", "ValueError"}


def _last_words(text: ast.expr) -> list[str]:
    """The literal strings with which an expression can end."""
    match text:
        case ast.Constant(value=str(words)):
            return [words]
        case ast.JoinedStr(values=[*_, last]) | ast.BinOp(op=ast.Add(), right=last):
            return _last_words(last)
        case ast.IfExp(body=body, orelse=orelse):
            return _last_words(body) + _last_words(orelse)
    return []


def test_messages_end_without_a_full_stop():
    files = [path for package in ("pimms_tf", "niftynet_compat") for path in (_ROOT / package).rglob("*.py")]
    said = []
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _SAYING:
                said += [(path, node.lineno, words) for text in node.args[:1] for words in _last_words(text)]
    assert len(said) > 200
    assert [place for place in said if place[2].endswith(".")] == []
