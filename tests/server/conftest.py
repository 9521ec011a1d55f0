"""A server to be tested: ours, started here, or any other that serves an export of ours.

    pytest tests/server/test_conformance.py \\
        --server http://127.0.0.1:8501/v1/models/pimms --server_grpc 127.0.0.1:8500 --export EXPORT
"""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest


class Server:
    """A server's addresses: `server.get("/metadata")`, `server.predict({...})`, each → (code, body)."""

    def __init__(self, url, grpc, export, process=None):
        self.url, self.grpc, self.export, self.process = url, grpc, Path(export), process

    def _answer(self, request):
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def get(self, rest=""):
        return self._answer(self.url + rest)

    def predict(self, body, rest=""):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._answer(urllib.request.Request(f"{self.url}{rest}:predict", data))

    def figures(self):
        root = self.url.partition("/v1/")[0]
        with urllib.request.urlopen(root + "/monitoring/prometheus/metrics", timeout=60) as answer:
            return answer.read().decode()

    def memory_mb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(timeout=120)


def start(base, *options):
    command = [sys.executable, "-m", "pimms_tf", "serve", str(base), "--rest_port", "0", "--grpc_port", "0", *options]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    for line in process.stdout:
        if found := re.search(r"REST: (\S+)  gRPC: (\S+)", line):
            return Server(found[1], found[2], base, process)
    raise AssertionError(f"the server ended with {process.wait()}")


@pytest.fixture(scope="session")
def started(request, tmp_path_factory):
    """Starts servers of our own with `started(base, options …)`, and stops them all in the end."""
    servers = []

    def starting(base, *options):
        servers.append(start(base, *options))
        return servers[-1]

    yield starting
    for server in servers:
        if server.process.poll() is None:
            server.stop()
        server.process.stdout.close()


@pytest.fixture(scope="session")
def server(request):
    """The server that was named, or ours."""
    url = request.config.getoption("--server")
    if url:
        return Server(url, request.config.getoption("--server_grpc"), request.config.getoption("--export"))
    for package in ("aiohttp", "grpc", "prometheus_client", "tensorflow_serving"):
        pytest.importorskip(package, reason="needs pip install 'pimms-tf[serving]'")
    small_export = request.getfixturevalue("small_export")
    return request.getfixturevalue("started")(small_export.parent)
