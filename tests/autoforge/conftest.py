"""The servers of the HTTP tests, and their folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.autoforge.http_server import KINDS, Server, serve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where servers and tests leave each other files, and the servers' migrated SQLite database."""
    folder = tmp_path_factory.mktemp("http")
    environment = os.environ | {"AUTOFORGE_VAR_DIR": str(folder), "DATABASE_URL": ""}
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], check=True, env=environment)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest, folder: Path) -> Iterator[Server]:
    with serve(request.param, folder, DATABASE_URL="") as server:
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """The module's server, with sentinel files of this test alone; nothing of it stays behind."""
    server = running.for_test()
    yield server
    server.say("go")
