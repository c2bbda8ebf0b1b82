"""A real browser for pages, where there is one; tests say why they are skipped elsewhere."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium():
    """A headless Chromium, driven by playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"there is no {' or '.join(NAMES)} here")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page in a context of its own, and what it complained of or asked the network for."""

    def __init__(self, browser, **settings):
        self.page = browser.new_context(**settings).new_page()
        self.page.set_default_timeout(60_000)  # the machine may be busy
        self.complaints, self.files = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))

    def _note(self, url):
        if not url.startswith(("file:", "data:", "about:")):
            self.complaints.append(url)
        if url.startswith("file:"):
            self.files.append(url)

    def open(self, path, fragment=""):
        """Loads the page anew, and waits until its data are unpacked."""
        self.page.goto("about:blank")
        self.page.goto(path.as_uri() + fragment)
        self.page.wait_for_selector("#pairs-room table, #pairs-room .told")
        self.page.wait_for_selector("#cases-room table, #cases-room .told")
        return self.page
