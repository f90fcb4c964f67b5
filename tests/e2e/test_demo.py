"""`make demo`: the main job with the real local model, as a user starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings


def run_demo(var: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")
    }
    return subprocess.run(
        [sys.executable, "manage.py", "demo"],
        cwd=settings.BASE_DIR,
        env=environment | {"AUTOFORGE_VAR_DIR": str(var)} | changes,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_what_fails_ends_the_demo_with_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    demo = run_demo(tmp_path, AUTOFORGE_RUNTIME_DIR=str(tmp_path / "file"))
    assert demo.returncode == 1
    (sentence,) = demo.stderr.splitlines()
    assert sentence.startswith("CommandError: The local model cannot run on this machine: ")
    assert not (tmp_path / "demo").exists()


@pytest.mark.local_model
def test_the_demo_evaluates_compares_and_then_answers_from_the_cache(tmp_path):
    demo = run_demo(tmp_path)
    assert demo.returncode == 0, demo.stderr
    assert "the difference is real" in demo.stdout
    report = json.loads((tmp_path / "demo" / "report.json").read_bytes())
    first, second = report["runs"]
    assert sum(column["cells"] for column in first["columns"]) >= 80
    assert [column["cache_hits"] for column in first["columns"]] == [0, 0]
    assert all(column["cache_hits"] == column["cells"] for column in second["columns"])
    assert report["comparison"]["p_value"] < 0.05 < report["comparison"]["difference"]
    assert first["columns"][0]["tokens"]["output"] > 0
