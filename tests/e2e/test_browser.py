"""The operator's desk in a real browser: every page, a run that is watched to its end, a clean console."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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
BROKEN = {"name": "broken", "provider": "simulated", "settings": {"error_rate": 1.0}}
CELLS = 104


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with installed(tmp_path_factory.mktemp("desk") / "var", "run_server") as installation:
        for endpoint in (SLOW, TALKATIVE, BROKEN):
            assert installation.request("POST", "/api/v1/models", endpoint)[0] == 201
        yield installation


@pytest.fixture(scope="module")
def window(server: Installation, chromium):
    """Signed in as the operator."""
    with browsing(chromium, server.url) as window:
        user, password = re.search(r"/admin/  (\S+) / (\S+)", server.output).groups()
        window.open("/admin/")
        window.fill("[name=username]", user)
        window.fill("[name=password]", password)
        window.click("[type=submit]")
        window.find("#nav-sidebar-apps")
        yield window


@pytest.fixture
def browser(window: Browser) -> Browser:
    """The window on a screen of its usual size, with an empty console."""
    window.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    window.complaints()
    return window


def start(server: Installation, **changes) -> str:
    status, run = server.request("POST", "/api/v1/runs", NEW_RUN | changes)
    assert status == 201, run
    return run["id"]


def test_every_page_opens_with_a_clean_console(server: Installation, browser: Browser) -> None:
    run = start(server, models=["simulated"])
    server.wait_for_run(run)
    result = server.request("GET", f"/api/v1/runs/{run}/results?limit=1")[1]["items"][0]
    for path, text in (
        ("/admin/", "Which run regressed?"),
        ("/admin/prompts/prompt/", "support/classify"),
        ("/admin/prompts/prompt/1/change/", "What changed from v1 to v2"),
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


@contextmanager
def visitors(server: Installation) -> Iterator[None]:
    """Somebody reads and asks a model all the time."""
    is_over = threading.Event()
    question = {"messages": [{"role": "user", "content": "Hello"}], "model": "simulated"}

    def visit() -> None:
        while not is_over.wait(0.05):
            server.request("GET", "/api/v1/prompts/support/classify")
            server.request("POST", "/api/v1/completions", question)

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def number(browser: Browser, selector: str) -> float:
    """The first number of a text; 0 where there is none."""
    found = re.search(r"[\d.,]+", browser.text(selector))
    return float(found.group().replace(",", "")) if found else 0.0


def test_the_dashboard_is_live_under_traffic(server: Installation, browser: Browser) -> None:
    with visitors(server):
        browser.open("/admin/")
        browser.wait(lambda _: browser.text("#connection") == "live")
        for name, unit in (("requests", "/s"), ("p95", (" ms", " s")), ("calls", "/s"), ("hits", " %")):
            tile = f"[data-tile={name}]"
            browser.wait(lambda _, tile=tile: number(browser, tile) > 0)
            assert browser.text(tile).endswith(unit)
        requests = "[data-panel=distribution] .legend li"
        before = number(browser, requests)
        assert browser.wait(lambda _: number(browser, requests) > before)
        assert browser.count(".graph canvas") == browser.count(".graph") - 1
        assert browser.count("[data-panel=distribution] .plot i") == 16
        assert re.search(
            r"P95 [\d.]+ ms", browser.find("[data-panel=latency] .plot").get_attribute("aria-label")
        )
        # History is there as soon as it has been recorded, and the keys 1 to 4 choose the range.
        browser.find("body").send_keys("2")
        browser.wait(lambda driver: driver.current_url.endswith("#1h"))
        browser.wait(lambda _: number(browser, requests) > 0)
        browser.wait(lambda _: "GET prompt" in browser.text("#tables"))
    assert browser.complaints() == []


def test_a_model_is_checked_by_a_button(server: Installation, browser: Browser) -> None:
    for name, answer in (("talkative", "It answered in"), ("broken", "It did not answer (unavailable")):
        browser.open("/admin/prompts/modelendpoint/")
        browser.find(f"[data-check$='/{name}/check'] button").click()
        browser.wait(
            lambda _, n=name, a=answer: a in browser.text(f"[data-check$='/{n}/check'] [role=status]")
        )
    # That a model did not answer is no error of the page.
    assert browser.complaints() == []


def test_a_label_is_moved_on_the_page_of_its_prompt(server: Installation, browser: Browser) -> None:
    browser.open("/admin/prompts/prompt/1/change/")
    browser.fill("#id_label", "staging")
    browser.click("#labels .button-main")
    browser.wait(lambda _: "staging points at version 2." in browser.text("body"))
    assert server.request("GET", "/api/v1/prompts/support/classify?label=staging")[1]["version"] == 2
    browser.click("[name=from][value='2']")
    browser.click("[name=to][value='1']")
    browser.click("#versions button")
    browser.wait(lambda _: "What changed from v2 to v1" in browser.text("#diff"))
    assert browser.complaints() == []


def test_results_are_leafed_through_by_keys(server: Installation, browser: Browser) -> None:
    run = start(server, models=["simulated"])
    server.wait_for_run(run)
    first = server.request("GET", f"/api/v1/runs/{run}/results?limit=1")[1]["items"][0]["id"]
    browser.open(f"/admin/evaluations/result/{first}/change/")
    browser.find("body").send_keys("j")
    browser.wait(lambda driver: f"/result/{first}/" not in driver.current_url)
    browser.find("body").send_keys("k")
    browser.wait(lambda driver: f"/result/{first}/" in driver.current_url)


def test_what_the_browser_paints_is_dark_on_dark_pages(browser: Browser) -> None:
    def paints(scheme: str) -> str:
        wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
        browser.open("/admin/evaluations/run/")
        browser.wait(lambda _: browser.count("html.dark") == (scheme == "dark"))
        return browser.driver.execute_script("return getComputedStyle(document.documentElement).colorScheme")

    assert paints("dark") == "dark"
    assert paints("light") != "dark"
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_it_fits_a_phone(server: Installation, browser: Browser) -> None:
    run = start(server, models=["simulated"])
    server.wait_for_run(run)
    phone = {"width": 360, "height": 780, "deviceScaleFactor": 1, "mobile": True}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    for path in (
        "evaluations/run/",
        "",
        "prompts/prompt/1/change/",
        "prompts/modelendpoint/",
        "prompts/modelendpoint/1/change/",
        f"evaluations/run/{run}/change/",
        f"evaluations/run/{run}/compare/",
        "evaluations/result/",
        "evaluations/dataset/1/change/",
        "evaluations/run/add/",
    ):
        browser.open(f"/admin/{path}")
        browser.find("#content")
        assert browser.driver.execute_script("return document.documentElement.scrollWidth") <= 360, path
