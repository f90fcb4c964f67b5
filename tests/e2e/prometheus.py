"""A real Prometheus that scrapes an installation with the project's own configuration, every second."""

import json
import math
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.conftest import BASE_DIR, Installation, free_port

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
FILES = BASE_DIR / "monitoring" / "prometheus"
_READY_S = 30


class Prometheus:
    """Its HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def values(self, expression: str) -> list[float]:
        """What `expression` is now, NaN left out: a quotient of nothings says nothing."""
        found = self._api("query", query=expression)["result"]
        samples = found if isinstance(found[0] if found else {}, dict) else [{"value": found}]
        values = [float(sample["value"][1]) for sample in samples]
        return [value for value in values if not math.isnan(value)]

    def rules(self) -> list[dict[str, Any]]:
        """Every recording and alerting rule."""
        return [rule for group in self._api("rules")["groups"] for rule in group["rules"]]

    def _api(self, path: str, **query: str) -> Any:
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=10) as response:
            return json.load(response)["data"]


@contextmanager
def scraping(server: Installation, folder: Path) -> Iterator[Prometheus]:
    """Prometheus with its data in `folder`."""
    folder.mkdir()
    text = (FILES / "prometheus.yml").read_text().replace("15s", "1s").replace("8000", str(server.port))
    (folder / "prometheus.yml").write_text(text)
    for name in ("rules.yml", "alerts.yml"):
        shutil.copy(FILES / name, folder)
    port = free_port()
    process = subprocess.Popen(
        [
            PROMETHEUS or "",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, f"{url}/-/ready")
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(_READY_S)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("Prometheus did not start")
