"""A web process starts without what it rarely needs."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from autoforge.lazy import lazy

# Each costs every web process megabytes; docs/performance/realtime.md has the figures.
RARE = {
    "aiohttp",
    "cryptography.fernet",
    "genai_prices",
    "jsonschema",
    "numpy",
    "rapidfuzz",
    "rich",
    "tokenizers",
}

START = """
import sys
import autoforge.asgi
from django.urls import resolve
resolve("/admin/")
print(*sys.modules, sep="\\n")
"""


def test_a_web_process_starts_without_what_it_rarely_needs() -> None:
    started = subprocess.run([sys.executable, "-c", START], stdout=subprocess.PIPE, text=True, check=True)
    modules = set(started.stdout.split())
    assert "prompts.services" in modules
    assert modules & RARE == set()


def test_a_lazy_module_is_the_module_for_any_thread() -> None:
    colours = lazy("colorsys")
    with ThreadPoolExecutor(8) as pool:
        functions = list(pool.map(lambda _: colours.rgb_to_hsv, range(64)))
    import colorsys

    assert set(functions) == {colorsys.rgb_to_hsv}
