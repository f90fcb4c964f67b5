"""Langfuse's own clients, each in an environment of its own under var/clients, built once."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.conftest import BASE_DIR

SOURCE = BASE_DIR / "tests" / "clients"
CACHE = BASE_DIR / "var" / "clients"
CLIENTS = ("langfuse-3", "langfuse-4", "langfuse-5", "langfuse-js")
_INSTALL_TIMEOUT_S = 180


class NotInstalled(Exception):
    """Why a client is not there: no index, no npm, or it took too long."""


def command_of(client: str) -> list[str]:
    """What runs the script of `client`. Raises NotInstalled."""
    return _node(client) if client.endswith("-js") else _python(client)


def _python(client: str) -> list[str]:
    home, pins = CACHE / client, SOURCE / f"{client}.txt"
    python = home / "bin" / "python"
    if not _is_built(home, pins):
        shutil.rmtree(home, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(home)])
        _run([str(python), "-m", "pip", "install", "-q", "--no-deps", "-r", str(pins)])
        _note_built(home, pins)
    return [str(python), str(SOURCE / "langfuse_client.py")]


def _node(client: str) -> list[str]:
    home, pins, script = CACHE / client, SOURCE / "package.json", "langfuse_client.mjs"
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise NotInstalled("there is no Node to run it with")
    if not _is_built(home, pins):
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        shutil.copy(pins, home)
        _run([npm, "install", "--no-audit", "--no-fund", "--prefix", str(home)])
        _note_built(home, pins)
    # Node looks for packages beside the script.
    shutil.copy(SOURCE / script, home)
    return [node, str(home / script)]


def _is_built(home: Path, pins: Path) -> bool:
    """Whether the environment is complete and of these versions."""
    stamp = home / pins.name.replace("package", "built")
    return stamp.exists() and stamp.read_text() == pins.read_text()


def _note_built(home: Path, pins: Path) -> None:
    (home / pins.name.replace("package", "built")).write_text(pins.read_text())


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_INSTALL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"{command[0]} took longer than {_INSTALL_TIMEOUT_S} s") from error
    if done.returncode:
        raise NotInstalled(f"{' '.join(command[:4])} failed: {done.stderr.decode()[-300:]}")
