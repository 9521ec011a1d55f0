"""What our own server does beyond the protocols: versions come and go, figures are kept, it ends when told to."""

import shutil
import signal
import time

import pytest

for package in ("aiohttp", "grpc", "prometheus_client", "tensorflow_serving"):
    pytest.importorskip(package, reason="needs pip install 'pimms-tf[serving]'")

SCANS = {"inputs": {"scans": [[[[1.0, 2.0], [3.0, 4.0]]]]}}


def publish(source, base, number, spoilt=False):
    """As `pimms-tf export` does: a folder that is complete when it appears."""
    shutil.copytree(source, base / ".new")
    if spoilt:
        (base / ".new" / "variables" / "variables.index").write_bytes(b"nothing")
    return (base / ".new").rename(base / str(number))


def until(condition, patience_s=300):
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def state_of(server, number):
    states = {each["version"]: each for each in server.get()[1]["model_version_status"]}
    return states.get(str(number), {"state": "unknown"})


def test_versions_come_and_go_while_it_answers(small_export, started, tmp_path):
    publish(small_export, tmp_path, 3)
    server = started(tmp_path, "--label", "stable=3")
    assert server.predict(SCANS, "/labels/stable")[0] == 200
    publish(small_export, tmp_path, 4)
    until(lambda: state_of(server, 4)["state"] == "AVAILABLE")
    for rest in ("", "/versions/4", "/labels/stable", "/versions/3"):  # a labelled version stays
        assert server.predict(SCANS, rest)[0] == 200
    publish(small_export, tmp_path, 5, spoilt=True)
    until(lambda: state_of(server, 5)["state"] == "END")
    assert state_of(server, 5)["status"]["error_message"]
    assert server.predict(SCANS)[0] == 200
    assert server.predict(SCANS, "/versions/5")[0] == 404
    figures = server.figures()
    assert 'pimms_requests_total{code="OK",protocol="rest",signature="serving_default"}' in figures
    assert server.stop() == 0


def test_too_large_a_request_is_refused_before_it_is_read(small_export, started):
    server = started(small_export.parent, "--most_mb", "1")
    code, body = server.predict(b"[" + b" " * 2**21)
    assert code == 413
    assert "larger than the 1,048,576 bytes" in body["error"]
    assert server.stop(signal.SIGINT) == 0


def test_a_folder_without_a_version_is_one_sentence(tmp_path):
    from pimms_tf.errors import InputError
    from pimms_tf.server.serve import Settings, serve

    with pytest.raises(InputError, match="has no version that can be served"):
        serve(Settings(tmp_path))
