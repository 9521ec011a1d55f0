"""How a result was made: hashes that `sha256sum` gives, too."""

import hashlib
import platform
from importlib import resources

import pimms_tf
from pimms_tf.clinic.provenance import installed_version, provenance, weights_sha256


def test_hashes_are_those_of_the_files(tmp_path):
    bundled = resources.files("pimms_tf.weights").joinpath("bundled.npz").read_bytes()
    assert weights_sha256("bundled") == hashlib.sha256(bundled).hexdigest()
    assert weights_sha256(tmp_path) == ""
    for number in (9, 10):
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / f"model.ckpt-{number}.data-00000-of-00001").write_bytes(b"%d" % number)
    assert weights_sha256(tmp_path) == hashlib.sha256(b"10").hexdigest()
    for number in (2, 10):
        values = tmp_path / "export" / str(number) / "variables"
        values.mkdir(parents=True)
        (values / "variables.data-00000-of-00001").write_bytes(b"v%d" % number)
    assert weights_sha256(tmp_path / "export") == hashlib.sha256(b"v10").hexdigest()
    assert weights_sha256(tmp_path / "export" / "2") == hashlib.sha256(b"v2").hexdigest()


def test_it_names_command_weights_and_versions():
    made = provenance("bundled", ["pimms-tf", "segment", "a b"])
    assert made.command == "pimms-tf segment 'a b'"
    assert dict(made.versions)["pimms-tf"] == pimms_tf.__version__
    assert dict(made.versions)["python"] == platform.python_version()
    assert installed_version("no-such-library") == "not installed"
    assert provenance().weights_sha256 == ""
