"""The operator's desk in a real browser: every page, a run that is watched to its end, a clean console."""

import re

import pytest

pytest.importorskip("selenium", reason="needs selenium, of requirements-dev.txt")
from tests.e2e.browser import CHROMIUM, DRIVER, Browser, browsing
from tests.e2e.conftest import Installation, installed

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver on the path"
)

PROMPTS = [{"name": "support/classify", "version": 1}, {"name": "support/classify", "version": 2}]
NEW_RUN = {
    "name": "Watched",
    "prompts": PROMPTS,
    "models": ["slow"],
    "dataset": "support",
    "scorers": [{"type": "icontains", "value": "praise"}],
}
SLOW = {
    "name": "slow",
    "provider": "simulated",
    "settings": {"latency_ms": 300, "tokens_per_s": 20, "output": "expected"},
}
TALKATIVE = {
    "name": "talkative",
    "provider": "simulated",
    "settings": {"latency_ms": 50, "tokens_per_s": 10, "output": "This is praise, I would say, " * 5},
}
CELLS = 104


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with installed(tmp_path_factory.mktemp("desk") / "var", "run_server") as installation:
        for endpoint in (SLOW, TALKATIVE):
            assert installation.request("POST", "/api/v1/models", endpoint)[0] == 201
        yield installation


@pytest.fixture
def browser(server: Installation, tmp_path):
    """Signed in as the operator."""
    with browsing(server.url, tmp_path / "profile") as window:
        user, password = re.search(r"/admin/  (\S+) / (\S+)", server.output).groups()
        window.open("/admin/")
        window.fill("[name=username]", user)
        window.fill("[name=password]", password)
        window.click("[type=submit]")
        window.find("#nav-sidebar-apps")
        yield window


def start(server: Installation, **changes) -> str:
    status, run = server.request("POST", "/api/v1/runs", NEW_RUN | changes)
    assert status == 201, run
    return run["id"]


def test_every_page_opens_with_a_clean_console(server: Installation, browser: Browser) -> None:
    run = start(server, models=["simulated"])
    server.wait_for_run(run)
    result = server.request("GET", f"/api/v1/runs/{run}/results?limit=1")[1]["items"][0]
    for path, text in (
        ("/admin/", "Runs"),
        ("/admin/prompts/prompt/", "support/classify"),
        ("/admin/prompts/modelendpoint/", "simulated"),
        ("/admin/auth/user/", "admin"),
        ("/admin/evaluations/dataset/", "support"),
        ("/admin/evaluations/dataset/1/change/", "Import cases"),
        ("/admin/evaluations/run/", "Watched"),
        ("/admin/evaluations/run/add/", "Scorers"),
        (f"/admin/evaluations/run/{run}/change/", "Pass rate"),
        (f"/admin/evaluations/run/{run}/compare/", "No difference can be told"),
        (f"/admin/evaluations/result/?run={run}", "support/classify v1"),
        (f"/admin/evaluations/result/{result['id']}/change/", "Asked"),
    ):
        browser.open(path)
        assert text in browser.text("#main"), path
        assert browser.complaints() == [], path


def test_a_run_is_watched_to_its_end(server: Installation, browser: Browser) -> None:
    run = start(server, concurrency=8, use_cache=False)
    browser.open(f"/admin/evaluations/run/{run}/change/")
    assert browser.count("a.square") == CELLS
    assert browser.text("#cancel") == "Cancel"
    browser.wait(lambda _: 0 < browser.count(".square-passed, .square-failed") < CELLS)
    browser.wait(lambda _: browser.count("#run-head[data-state=finished]"))
    browser.wait(lambda _: browser.count(".square-passed[href]") == CELLS / 2)
    assert browser.count(".square-failed[href]") == CELLS / 2
    assert browser.text("[data-count=done]") == str(CELLS)
    assert browser.count("#cancel") == 0
    assert browser.complaints() == []


def test_tokens_are_read_while_cells_are_in_flight(server: Installation, browser: Browser) -> None:
    run = start(server, models=["talkative"], use_cache=False)
    browser.open(f"/admin/evaluations/run/{run}/change/")
    browser.wait(lambda _: "This is praise" in browser.text("#run-tokens"))
    assert "support/classify v1 · talkative" in browser.text("#run-tokens")
    browser.wait(lambda _: browser.count(".square-busy"))
    server.request("POST", f"/api/v1/runs/{run}/cancel")
    browser.wait(lambda _: browser.count("#run-head[data-state=cancelled]"))
    assert browser.complaints() == []


def test_a_run_is_started_and_cancelled_by_hand(server: Installation, browser: Browser) -> None:
    browser.open("/admin/evaluations/run/add/?dataset=support")
    browser.fill("#id_name", "By hand")
    browser.click("[name=prompts]")
    browser.click("[name=models][value=slow]")
    browser.fill("#id_concurrency", "1")
    browser.click("#id_use_cache")
    browser.click("form .button-main")
    browser.click("#cancel")
    browser.wait(lambda _: browser.count("#run-head[data-state=cancelled]"))
    assert "The run is cancelled." in browser.text("body")
    assert browser.count("#resume") == 1
    assert browser.complaints() == []


def test_it_fits_a_phone(server: Installation, browser: Browser) -> None:
    run = start(server, models=["simulated"])
    server.wait_for_run(run)
    phone = {"width": 360, "height": 780, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    for path in (
        "run/",
        f"run/{run}/change/",
        f"run/{run}/compare/",
        "result/",
        "dataset/1/change/",
        "run/add/",
    ):
        browser.open(f"/admin/evaluations/{path}")
        browser.find("#content")
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= 360, path
