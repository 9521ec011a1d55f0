"""The package's public names: all there, and TensorFlow only for those that need it."""

import subprocess
import sys

import pytest

import pimms_tf.data


def test_every_public_name_exists():
    assert sorted(pimms_tf.data.__all__) == dir(pimms_tf.data)
    for name in pimms_tf.data.__all__:
        assert getattr(pimms_tf.data, name).__module__.startswith(("pimms_tf.data.", "pimms_tf.pipeline."))


def test_reading_scans_does_not_wait_for_tensorflow():
    program = "import sys, pimms_tf.data; print(*{'tensorflow', 'keras'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pimms_tf.data' has no attribute 'helpers'"):
        _ = pimms_tf.data.helpers
