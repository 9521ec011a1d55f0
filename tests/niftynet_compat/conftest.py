import pytest


@pytest.fixture(autouse=True)
def _no_niftynet_home(tmp_path_factory, monkeypatch):
    """Keeps the settings of NiftyNet that this user may have out of the tests."""
    monkeypatch.setenv("niftynet_config_home", str(tmp_path_factory.mktemp("home")))
