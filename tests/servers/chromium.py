"""A real headless Chromium, the box's own: nothing is downloaded. What it asks for and what goes wrong is recorded."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")  # in the order of the install script
DESKTOP, PHONE = (1280, 900), (360, 740)
PATIENCE_MS = 30_000
expect.set_options(timeout=PATIENCE_MS)


def find_browser() -> str:
    """The full path; the test fails where none runs (Ubuntu's chromium may be a script without a snap)."""
    for name in NAMES:
        path = shutil.which(name)
        if path and subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    pytest.fail(f"none of {', '.join(NAMES)} runs; install one with `apt-get install chromium`")


@dataclass
class Seen:
    """What happened on a page beside what it shows."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)  # errors on its console (CSP says so there), exceptions


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser process. Its sandbox needs rights that containers and root do not have."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser, url: str, *, size: tuple[int, int] = DESKTOP, dark: bool = False
) -> Iterator[tuple[Page, Seen]]:
    """A page in a context of its own (no cookies), with everything that it asks for and complains of."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme="dark" if dark else "light", timezone_id="UTC"
    )
    context.set_default_timeout(PATIENCE_MS)
    seen = Seen()
    try:
        page = context.new_page()
        page.on("request", lambda request: seen.requests.append(request.url))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on("console", lambda said: seen.complaints.append(said.text) if said.type == "error" else None)
        page.goto(url)
        yield page, seen
    finally:
        context.close()


def overflow_px(page: Page) -> int:
    """By how much the page is wider than the screen."""
    found: int = page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth")
    return found
