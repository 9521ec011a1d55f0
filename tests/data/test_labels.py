"""One judgement of the values of label maps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimms_tf.data.intensity import LabelMapping
from pimms_tf.data.labels import Judgement, LabelRules
from pimms_tf.errors import InputError

CODES = LabelMapping((0.0, 7.0, 255.0), (0, 1, 2))


@pytest.mark.parametrize(
    ("rules", "values", "expected"),
    [
        (LabelRules(2), [0, 1], Judgement()),
        (LabelRules(2), [0, 1 + 1e-4], Judgement()),
        (LabelRules(2), [-1, 0, 0.5, 1, 2, 255], Judgement((0.5,), (-1.0, 2.0, 255.0))),
        (LabelRules(2, ignored=(2,)), [0, 1, 2, 255], Judgement((), (255.0,))),
        (LabelRules(2, is_interpolated=True), [0, 0.25, 1.4, 1.6], Judgement((), (1.6,))),
        (LabelRules(3, CODES), [0, 7, 255, 1], Judgement((), (), (1.0,))),
        (LabelRules(2, CODES), [0, 7, 255], Judgement((), (255.0,))),
        (LabelRules(), [-5, 0, 1000], Judgement()),
        (LabelRules(2), [], Judgement()),
    ],
)
def test_values_are_between_classes_outside_them_or_without_a_code(rules, values, expected):
    assert rules.judge(values) == expected


@given(st.lists(st.sampled_from([-1, 0, 0.5, 1, 2, 3, 7, 255]), min_size=1), st.booleans(), st.booleans())
def test_a_map_has_classes_exactly_if_its_values_are_judged_fine(values, is_mapped, is_interpolated):
    rules = LabelRules(2, CODES if is_mapped else None, is_interpolated)
    found = rules.judge(values)
    if found.between or found.outside:
        with pytest.raises(InputError, match="^file .*(should hold whole numbers|outside 0 to 1)"):
            rules.classes(np.array(values, np.float32), "file")
    else:
        classes = rules.classes(np.array(values, np.float32), "file")
        assert classes.dtype == np.int32
        assert set(classes.tolist()) <= {0, 1}


def test_values_without_a_code_become_0_with_a_warning(caplog):
    assert LabelRules(3, CODES).classes(np.array([255.0, 3.0, 7.0]), "file").tolist() == [2, 0, 1]
    assert "file has label values (3.0,) that the mapping does not list; they become 0" in caplog.text
