"""The folder of the HTTP tests' servers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where servers and tests leave each other files, and the servers' migrated SQLite database."""
    folder = tmp_path_factory.mktemp("http")
    environment = os.environ | {"AUTOFORGE_VAR_DIR": str(folder), "DATABASE_URL": ""}
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], check=True, env=environment)
    return folder
