"""promptfoo itself, installed once into var/clients and run as its users run it."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.realtime.clients import ROOT

VERSION = "0.121.20"
LANGFUSE_CLIENT = "@langfuse/client@5.11.1"
_HOME = ROOT / "var" / "clients" / "promptfoo"
_ENTRY = _HOME / "node_modules" / "promptfoo" / "dist" / "src" / "entrypoint.js"
_INSTALL_TIMEOUT_S, _EVAL_TIMEOUT_S = 600, 120
# Nothing but the installation under test is called.
_QUIET = {
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
    "PROMPTFOO_DISABLE_SHARING": "1",
    "PROMPTFOO_SELF_HOSTED": "1",
    "CI": "1",
}


def install() -> None:
    """Skips the test, with the reason, where npm or its registry is missing."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("promptfoo needs node and npm")
    if not _is_installed("promptfoo", VERSION):
        _npm(f"promptfoo@{VERSION}", LANGFUSE_CLIENT)
    native = _libsql()
    if not _is_installed(native):
        versions = json.loads((_HOME / "node_modules" / "libsql" / "package.json").read_text())
        _npm(f"{native}@{versions['optionalDependencies'][native]}")


def evaluate(directory: Path, config: dict[str, Any], *options: str, **environment: str) -> dict[str, Any]:
    """`promptfoo eval` of a configuration: its results file."""
    (directory / "promptfooconfig.json").write_text(json.dumps(config))
    output = directory / "output.json"
    quiet = ("--no-cache", "--no-progress-bar", "--no-write", "--no-table")
    ended = subprocess.run(
        ["node", str(_ENTRY), "eval", "-c", "promptfooconfig.json", "-o", str(output), *quiet, *options],
        cwd=directory,
        env=os.environ | _QUIET | {"PROMPTFOO_CONFIG_DIR": str(directory / "home")} | environment,
        capture_output=True,
        text=True,
        timeout=_EVAL_TIMEOUT_S,
        check=False,
    )
    assert output.exists(), ended.stdout + ended.stderr
    return dict(json.loads(output.read_text()), exit_code=ended.returncode)


def _npm(*packages: str) -> None:
    _HOME.mkdir(parents=True, exist_ok=True)
    # Without its optional dependencies it is a quarter of the size; one of them it does need.
    command = [
        "npm",
        "install",
        "--prefix",
        str(_HOME),
        "--no-audit",
        "--no-fund",
        "--omit=optional",
        "--force",
    ]
    try:
        subprocess.run([*command, *packages], capture_output=True, timeout=_INSTALL_TIMEOUT_S, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm cannot install {' '.join(packages)}: {type(error).__name__}")


def _is_installed(package: str, version: str = "") -> bool:
    described = _HOME / "node_modules" / package / "package.json"
    return described.exists() and json.loads(described.read_text())["version"].startswith(version)


def _libsql() -> str:
    """The native half of promptfoo's database, by the names that npm has for machines."""
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}.get(platform.machine().lower(), "arm64")
    return f"@libsql/{sys.platform}-{machine}" + ("-gnu" if sys.platform == "linux" else "")
