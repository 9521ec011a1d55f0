"""How messages count things, and call several at once."""

import pytest

from pimms_tf.wording import counted, some_of


@pytest.mark.parametrize(("number", "text"), [(0, "0 files"), (1, "1 file"), (2, "2 files")])
def test_a_number_goes_with_one_thing_or_with_several(number, text):
    assert counted(number, "file") == text


def test_a_verb_goes_with_the_number():
    assert [counted(n, "entry is", "entries are") for n in (1, 5)] == ["1 entry is", "5 entries are"]


def test_the_first_names_are_given_and_the_rest_counted():
    assert some_of("gfedcba") == "a, b, c, d, e and 2 more"
    assert some_of([]) == "none"
