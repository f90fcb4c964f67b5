"""`make` explains itself, and says what is missing before it touches anything."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What `make` needs of a fresh clone, without a .venv."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    for requirements in ROOT.glob("requirements*.txt"):
        shutil.copy(requirements, tmp_path)
    return tmp_path


def make(clone: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *words],
        cwd=clone,
        env=_environment() | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _environment() -> dict[str, str]:
    """Ours without what an outer `make test` hands down to a `make` inside it."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))
    }


def test_make_alone_lists_every_target(clone):
    answer = make(clone)
    assert answer.returncode == 0
    listed = [line.split()[1] for line in answer.stdout.splitlines()]
    assert listed == ["help", "demo", "run", "serve", "test", "check", "perf", "clean"]


def test_without_a_usable_python_a_sentence_says_what_to_install(clone):
    answer = make(clone, "run", "PYTHON=/nonexistent/python3")
    assert answer.returncode != 0
    assert answer.stderr.startswith("No usable Python: AutoForge needs 3.11, 3.12 or 3.13")
    assert "tried: /nonexistent/python3" in answer.stderr
    assert not (clone / ".venv").exists()


def test_a_python_that_does_not_run_is_passed_over(clone):
    shims = clone / "shims"
    shims.mkdir()
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        (shims / name).write_text("#!/bin/sh\nexit 127\n")
        (shims / name).chmod(0o755)
    answer = make(clone, "run", PATH=f"{shims}:{os.environ['PATH']}", PYTHON="")
    assert "tried: python3.13 python3.12 python3.11 python3" in answer.stderr
    assert not (clone / ".venv").exists()


def test_clean_keeps_your_data(clone):
    for name in (".venv/bin", "var", "app/__pycache__"):
        (clone / name).mkdir(parents=True)
    assert make(clone, "clean").returncode == 0
    assert (clone / "var").exists()
    assert not (clone / ".venv").exists()
    assert not (clone / "app/__pycache__").exists()
