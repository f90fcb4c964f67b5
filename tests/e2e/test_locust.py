"""The load test as its user calls it: people of every kind at work, nobody is refused."""

import os
import subprocess
import sys

from tests.e2e.conftest import BASE_DIR

LOAD = ["-f", "tests/performance/locustfile.py", "--headless", "-u", "20", "-r", "20", "-t", "20s"]
KINDS = {"prompt by label", "new version", "start run", "connect", "subscribe", "ping"}


def test_people_of_every_kind_work_without_a_failure(install):
    with install("run_server") as server:
        answer = subprocess.run(
            [sys.executable, "-m", "locust", *LOAD, f"--host={server.url}"],
            cwd=BASE_DIR,
            env=os.environ | {"AUTOFORGE_VAR_DIR": str(server.var)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    table = answer.stdout + answer.stderr
    assert all(f" {kind} " in table for kind in KINDS), table
    assert "af_sk_" not in table
