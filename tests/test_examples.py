"""Examples in docstrings run and give what they say."""

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("pimms_tf", "niftynet_compat")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_give_what_they_say(name):
    module = importlib.import_module(name)
    done = doctest.testmod(module, extraglobs={"np": np})
    assert done.attempted > 0
    assert done.failed == 0


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("pimms_tf.data", ("reorient", "resample", "foreground_mask", "whiten", "grid_locations", "crop")),
        ("pimms_tf.evaluation", ("dice", "hausdorff_mm", "paired_wilcoxon", "modality_subsets")),
        ("niftynet_compat", ("split_subjects",)),
    ],
)
def test_functions_on_arrays_that_a_notebook_begins_with_have_an_example(module, names):
    found = importlib.import_module(module)
    assert [name for name in names if ">>> " not in getattr(found, name).__doc__] == []
