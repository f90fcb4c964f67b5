"""A headless Chromium that writes down what its console says."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)
_PATIENCE_S = 30
_TRANSIENT = [NoSuchElementException, StaleElementReferenceException]


class Browser:
    """One window on the installation at `url`."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self._url = url

    def open(self, path: str) -> None:
        self.driver.get(self._url + path)

    def find(self, selector: str) -> WebElement:
        """The first element that matches, as soon as there is one."""
        return self.wait(lambda driver: driver.find_element(By.CSS_SELECTOR, selector))

    def count(self, selector: str) -> int:
        return len(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def text(self, selector: str = "#content") -> str:
        """What it says; a part that is just being replaced is read anew."""
        return self.wait(lambda driver: [driver.find_element(By.CSS_SELECTOR, selector).text])[0]

    def fill(self, selector: str, text: str) -> None:
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def click(self, selector: str) -> None:
        self.wait(lambda driver: [driver.find_element(By.CSS_SELECTOR, selector).click()])

    def wait(self, condition):
        """What `condition(driver)` returns once it is true; stale and missing elements are waited for."""
        return WebDriverWait(self.driver, _PATIENCE_S, 0.1, ignored_exceptions=_TRANSIENT).until(condition)

    def complaints(self) -> list[str]:
        """Errors and warnings of the console since the last look."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
        ]


@contextmanager
def started(profile: Path, *flags: str) -> Iterator[webdriver.Chrome]:
    """A Chromium with an empty profile; gone at the end."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*_FLAGS, *flags, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def browsing(driver: webdriver.Chrome, url: str) -> Iterator[Browser]:
    """A window on `url` in which nobody has been; what happened in it is forgotten at the end."""
    try:
        yield Browser(driver, url)
    finally:
        driver.get("about:blank")
        for command, parameters in (
            ("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "all"}),
            ("Network.clearBrowserCookies", {}),
            ("Emulation.clearDeviceMetricsOverride", {}),
        ):
            driver.execute_cdp_cmd(command, parameters)
        driver.get_log("browser")
