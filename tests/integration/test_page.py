"""The page of a real daemon in a real Chromium: live, acknowledged by a click, stale when the daemon is gone."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from integration.harness import MACHINE, Daemon, MqttOutlet, Sensors, cli_json
from integration.small import ROTOR, small_config
from pageplant import write_capture
from private import private
from servers.chromium import PHONE, chromium, opened, overflow_px
from servers.mosquitto import Mosquitto
from servers.process import free_port

TOKEN = "a-token-of-an-integration-test"
HERE = f"#/m/{MACHINE}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path) as running:
        yield running


def page_config(folder: Path, broker: Mosquitto, *, enrolled: Path | None = None, keys: str = "") -> tuple[Path, str]:
    """A configuration whose page listens on a free port; and its address."""
    port = free_port()
    extra = f"[page]\nport = {port}\n{keys}"
    return small_config(folder, enrolled=enrolled, broker_port=broker.port, extra=extra), f"http://127.0.0.1:{port}/"


def only_asks(requests: list[str], url: str) -> None:
    assert requests
    assert [r for r in requests if not r.startswith(url)] == [], "the page may ask nobody but the agent"


def the_alarm(page: Page) -> dict[str, object]:
    shown: dict[str, object] = page.evaluate("fetch('/api/overview').then(r => r.json()).then(o => o.alarms)")
    alarms = shown[MACHINE]
    assert isinstance(alarms, list)
    return next(alarm for alarm in alarms if alarm["alarm"] == "anomaly")


@pytest.mark.slow
def test_an_alarm_appears_live_is_acknowledged_by_a_click_and_everything_is_stale_without_the_daemon(
    tmp_path: Path, broker: Mosquitto, enrolled: Path, browser: Browser
) -> None:
    config, url = page_config(tmp_path, broker, enrolled=enrolled)
    with (
        Daemon(config) as daemon,
        Sensors(MqttOutlet(broker.port), machine=ROTOR) as sensors,
        opened(browser, url) as (page, seen),
        opened(browser, url + HERE, size=PHONE) as (phone, seen_by_phone),
    ):
        card = page.locator(".card", has_text=MACHINE)
        expect(card.locator(".level")).to_have_text("normal")
        expect(card).to_contain_text("running")
        expect(card).to_contain_text("vib ok")
        expect(page.locator("#agent-status")).to_contain_text("online")
        expect(page.locator("#stale")).to_be_hidden()
        expect(page.locator("#waiting")).to_contain_text("No alarm needs anybody")

        sensors.fault_now()
        expect(page.locator("#waiting")).to_contain_text(f"{MACHINE}: anomaly")  # nobody loaded anything again
        expect(card.locator(".level")).to_have_text(re.compile("alarm|severe"))
        alarm = phone.locator("#alarms li", has_text="anomaly").first
        expect(alarm).to_contain_text("active, not acknowledged")

        # The evidence is written by another part of the agent; here only what the page makes of it is looked at.
        occurrence = the_alarm(page)["occurrence"]
        assert isinstance(occurrence, int)
        shutil.rmtree(config.parent / "state" / "captures", ignore_errors=True)
        write_capture(config.parent / "state", MACHINE, occurrence)
        alarm.get_by_role("button", name="Why?").click()
        expect(phone.locator("#why .spectrogram")).to_have_count(2)
        expect(phone.locator("#why .waveform")).to_be_visible()
        expect(phone.locator("#why")).to_contain_text("kurtosis")
        expect(phone.locator("#score canvas")).to_be_visible()
        expect(phone.locator("#channels .strip").first).to_be_visible()
        assert overflow_px(phone) <= 0

        phone.get_by_label("Your name").fill("mia")
        phone.get_by_label("Your name").blur()
        alarm.get_by_label("comment").fill("bearing ordered <b>today</b>")
        alarm.get_by_role("button", name="Acknowledge").click()
        expect(alarm).to_contain_text("active, acknowledged")
        expect(alarm).to_contain_text("by mia")
        expect(alarm).to_contain_text("“bearing ordered <b>today</b>”")
        expect(page.locator("#waiting")).to_contain_text("No alarm needs anybody")
        (stored,) = [a for a in cli_json(config, "alarms") if a["alarm"] == "anomaly"]
        assert (stored["state"], stored["occurrence"]) == ("ACKED", occurrence)

        only_asks(seen.requests, url)
        only_asks(seen_by_phone.requests, url)
        assert seen.complaints == [] and seen_by_phone.complaints == []

        daemon.kill()
        for shown in (page, phone):
            expect(shown.locator("#stale")).to_contain_text("STALE")
            expect(shown.locator("#stale")).to_contain_text("does not answer")
            expect(shown.locator("body")).to_have_class(re.compile("stale"))
        assert overflow_px(phone) <= 0

        daemon.start()  # and a page that was left open finds it again
        for shown in (page, phone):
            expect(shown.locator("#stale")).to_be_hidden()
        daemon.stop()
        expect(page.locator("#stale")).to_contain_text("was stopped")


@pytest.mark.slow
def test_a_machine_is_enrolled_on_the_page(tmp_path: Path, broker: Mosquitto, browser: Browser) -> None:
    config, url = page_config(tmp_path, broker)
    with Daemon(config), Sensors(MqttOutlet(broker.port), machine=ROTOR, speed=12.0):
        with opened(browser, url + HERE, size=PHONE) as (page, seen):
            enrolment = page.locator("#enrolment")
            expect(enrolment).to_contain_text("not enrolled")
            enrolment.locator("select").select_option("60")
            enrolment.get_by_role("button", name="Enrol").click()
            expect(enrolment).to_contain_text("Listening")
            expect(enrolment.locator("progress")).to_be_visible()
            expect(enrolment).to_contain_text("Learnt", timeout=90_000)
            expect(page.locator(".now")).to_contain_text(re.compile(r"Enrolled\s*yes"), timeout=30_000)
            expect(page.locator(".now .level")).to_have_text("normal")
            assert seen.complaints == []
        assert cli_json(config, "status")["machines"][MACHINE]["enrolled"]


def test_with_a_token_the_page_asks_for_it_first(tmp_path: Path, broker: Mosquitto, browser: Browser) -> None:
    private(tmp_path / "token", TOKEN)
    config, url = page_config(tmp_path, broker, keys=f'token_file = "{tmp_path}/token"')
    with Daemon(config), opened(browser, url, size=PHONE) as (page, seen):
        expect(page).to_have_url(url + "login")
        assert overflow_px(page) <= 0
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button").click()
        expect(page.locator("#said")).to_have_text("that is not the token")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button").click()
        expect(page.locator(".card", has_text=MACHINE)).to_be_visible()
        (cookie,) = page.context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict" and TOKEN not in json.dumps(cookie)
        page.goto(url + "#/agent")
        expect(page.locator("main")).to_contain_text("Memory")
        assert overflow_px(page) <= 0
        only_asks(seen.requests, url)
        page.context.clear_cookies()
        page.reload()
        expect(page).to_have_url(re.compile(re.escape(url + "login")))


def test_no_other_page_can_act_or_look(tmp_path: Path, broker: Mosquitto, browser: Browser) -> None:
    """The browser itself, on another origin of the same box: neither a form's request nor a script's gets through."""
    config, url = page_config(tmp_path, broker)
    other_config, other_url = page_config(tmp_path / "other", broker)
    other_config.write_text(other_config.read_text().replace('edge = "edge-1"', 'edge = "edge-2"'))
    path = f"{url}api/machines/{MACHINE}/enroll"
    as_a_form = '{method: "POST", mode: "no-cors", body: "{\\"duration_s\\": 600}"}'
    as_ours = (
        '{method: "POST", headers: {"content-type": "application/json", "x-fisher": "1"},'
        ' body: "{\\"duration_s\\": 600}"}'
    )
    with Daemon(config), Daemon(other_config), opened(browser, url) as (ours, _):
        # The other page's own Content-Security-Policy must not be what helps.
        context = browser.new_context(bypass_csp=True)
        other = context.new_page()
        other.goto(other_url)
        for options in (as_a_form, as_ours):
            assert other.evaluate(f'fetch("{path}", {options}).then(r => r.status, e => -1)') in (-1, 0)
        assert other.evaluate(f'fetch("{url}api/overview").then(r => r.text(), e => "refused")') == "refused"
        enrolling = "fetch('/api/overview').then(r => r.json()).then(o => o.enrolling)"
        assert ours.evaluate(enrolling) == {}
        assert ours.evaluate(f'fetch("{path}", {as_ours}).then(r => r.status)') == 200, "our own page may do it"
        assert list(ours.evaluate(enrolling)) == [MACHINE]
        context.close()
