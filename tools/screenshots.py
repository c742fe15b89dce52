"""Pictures of the page for the documents: runs `fisher-agent demo` and opens its page in the box's own Chromium.

    python tools/screenshots.py [--out deploy/docs/images] [--femto | --url http://127.0.0.1:8420/ --machine mill-01]

With --femto the explanation alone is taken, of a bearing's recorded life at a thousand times real time (the recordings
beside the repository). With --url an agent that runs already is shown instead. A picture of the explanation needs an
alarm whose evidence was kept; where there is none it is left out, said. Every picture is a PNG of at most 150 kB.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from PIL import Image
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import TimeoutError as NeverCame

from integration import femto
from servers.chromium import DESKTOP, PHONE, chromium, opened

ROOT = Path(__file__).parents[1]
ALARM_MS = 1_200_000  # the demo learns, watches, and only then lets its fault begin; on a busy box that takes long
SETTLE_MS = 8000  # the charts are loaded again every five seconds
MAX_BYTES = 150_000
COLOURS = 128


@contextmanager
def demo() -> Iterator[str]:
    """The address of a demo's page; the demo ends with the block."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "fisher_agent.cli", "demo"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"open (http\S+) in a browser", line):
                yield found[1]
                return
        sys.exit("the demo ended without naming its page")
    finally:
        process.terminate()
        process.stdout.close()
        process.wait()


def save(page: Page, path: Path) -> None:
    """What is in the window now."""
    page.wait_for_timeout(500)  # what was scrolled to is painted
    page.screenshot(path=path)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    size = path.stat().st_size
    if size > MAX_BYTES:
        sys.exit(f"{path} has {size} bytes; at most {MAX_BYTES} belong into the repository")
    print(f"{path} {size // 1000} kB")


def take(browser: Browser, url: str, machine: str, out: Path) -> None:
    """All pictures, once the machine is in alarm."""
    here = f"{url}#/m/{machine}"
    with opened(browser, url) as (page, _):
        expect(page.locator("#waiting")).to_contain_text(f"{machine}: anomaly", timeout=ALARM_MS)
        page.wait_for_timeout(SETTLE_MS)  # so that the trend shows the fault
        save(page, out / "overview.png")
    with opened(browser, here) as (page, _):
        expect(page.locator("#score canvas")).to_be_visible()
        page.get_by_role("button", name="15 min").click()
        page.wait_for_timeout(SETTLE_MS)
        save(page, out / "machine.png")
        page.get_by_role("heading", name="Score over time").scroll_into_view_if_needed()
        page.evaluate("document.querySelector('#score').closest('section').scrollIntoView()")
        save(page, out / "history.png")
        explanation(page, out / "explanation.png")
    with opened(browser, here, size=PHONE) as (page, _):
        expect(page.locator("#alarms li").first).to_be_visible()
        page.wait_for_timeout(SETTLE_MS)
        save(page, out / "phone.png")
    with opened(browser, f"{url}#/agent", dark=True, size=(DESKTOP[0] // 2, DESKTOP[1] // 2 + 150)) as (page, _):
        expect(page.locator("main")).to_contain_text("Memory")
        save(page, out / "agent.png")


def explanation(page: Page, path: Path) -> None:
    """Why the anomaly was raised, where that was kept."""
    page.locator("#alarms li", has_text="anomaly").first.get_by_role("button", name="Why?").click()
    try:
        expect(page.locator("#why .spectrogram").first).to_be_visible(timeout=SETTLE_MS)
    except (AssertionError, NeverCame):
        print(f"{path}: no evidence of this alarm was kept; left out")
        return
    page.locator("#why").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('#why').scrollIntoView()")
    save(page, path)


def bearing(browser: Browser, out: Path) -> None:
    """Why the anomaly of a recorded bearing was raised."""
    with (
        tempfile.TemporaryDirectory() as folder,
        femto.told(Path(folder)) as story,
        opened(browser, f"{story.url}#/m/{femto.RIG}") as (page, _),
    ):
        story.hmi.wait_for_json(f"{femto.HERE}/alarm/anomaly", lambda a: a["capture"] != "", timeout_s=180)
        expect(page.locator("#alarms li", has_text="anomaly").first).to_contain_text("active")
        explanation(page, out / "explanation.png")


def main() -> None:
    """Take them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "deploy" / "docs" / "images")
    parser.add_argument("--femto", action="store_true", help="the explanation of a recorded bearing's alarm")
    parser.add_argument("--url", default="", help="of an agent that runs already")
    parser.add_argument("--machine", default="mill-01")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        if arguments.femto:
            bearing(browser, arguments.out)
        elif arguments.url:
            take(browser, arguments.url.rstrip("/") + "/", arguments.machine, arguments.out)
        else:
            with demo() as url:
                take(browser, url, arguments.machine, arguments.out)


if __name__ == "__main__":
    main()
