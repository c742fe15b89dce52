"""A bearing's recorded life at a thousand times real time, seen on the page: the alarm, and why."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from integration import femto
from servers.chromium import chromium, opened

pytestmark = pytest.mark.skipif(not femto.MANIFEST.exists(), reason=f"{femto.MANIFEST} is not at hand")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_bearing_that_fails_is_alarmed_and_explained_on_the_page(tmp_path: Path) -> None:
    with (
        chromium() as browser,
        femto.told(tmp_path) as story,
        opened(browser, f"{story.url}#/m/{femto.RIG}") as (page, seen),
    ):
        raised = story.hmi.wait_for_json(f"{femto.HERE}/alarm/anomaly", lambda a: a["state"] == "UNACK", timeout_s=120)
        assert raised["ts_onset"] > femto.START_NS // 10**6 + femto.ENROLLED_S * 1000
        kept = story.hmi.wait_for_json(f"{femto.HERE}/alarm/anomaly", lambda a: a["capture"] != "", timeout_s=60)
        alarm = page.locator("#alarms li", has_text="anomaly").first
        expect(alarm).to_contain_text("active")
        # At this speed the alarm may have come again already, and its capture takes its time.
        for _ in range(20):
            alarm.get_by_role("button", name="Why?").click()
            page.wait_for_timeout(3000)
            if page.locator("#why .spectrogram").first.is_visible():
                break
        expect(page.locator("#why .spectrogram").first).to_be_visible()
        expect(page.locator("#why")).to_contain_text("kurtosis")
        expect(page.locator("#why")).to_contain_text("BPFO")
        # A capture that was asked for before it was written is said to be missing; the browser notes that, too.
        assert [c for c in seen.complaints if "404" not in c] == []
        # It has failed by its end, and nothing was lost on the way.
        while story.life.sent < story.life.count:
            page.wait_for_timeout(200)
        story.hmi.wait_for(f"{femto.HERE}/level", lambda p: p == b"3", timeout_s=60)
        health = story.hmi.wait_for_json(f"{femto.BASE}/health", after=story.hmi.count(f"{femto.BASE}/health"))
        assert (health["dropped"], health["rejected"]) == (0, 0)
        assert (tmp_path / "state" / "captures" / kept["capture"] / "capture.json").is_file()
