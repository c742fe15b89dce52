"""What of a configuration may leave the box: known keys, and nothing that could be a secret under any name."""

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fisher_agent.config import Config
from fisher_agent.doctor.redact import HIDDEN, NAME_SET, Hidden, known_keys

SECRET = "hunter2-correct-horse"


@pytest.mark.parametrize(
    "document",
    [
        {"mqtt": {"password": SECRET}},
        {"influx": {"token": SECRET, "url": "http://127.0.0.1:8086"}},
        {"influx": {"token_file": SECRET}},
        {"influx": {"token_file": f"/{SECRET}"}},
        {"mqtt": {"url": f"mqtt://fisher:{SECRET}@127.0.0.1"}},
        {"mqtt": {"url": f"mqtt:fisher:{SECRET}@127.0.0.1"}},
        {"sources": [{"name": "plant", "url": "mqtt://h", "auth": {"user": "u", "deep": [SECRET]}}]},
        {SECRET: 1, "mqtt": {"anything": {"at": {"all": SECRET}}}},
        {"machines": [{"id": "m", "defaults": {"psk": SECRET}}]},
    ],
)
def test_a_secret_under_any_key_is_hidden_here_and_in_every_later_text(document: dict[str, Any]) -> None:
    hidden = Hidden()
    shown = hidden.config(document)
    assert SECRET not in str({k: v for k, v in shown.items() if k != SECRET})
    if SECRET not in document:
        assert SECRET not in hidden.scrub(f"cannot log in with {SECRET!r} at mqtt://fisher:{SECRET}@host")


def test_what_support_needs_is_shown(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    document = {
        "site": "plant1",
        "state_dir": "/var/lib/fisher-agent",
        "mqtt": {"url": "mqtts://broker:8883", "username": "fisher", "password_file": str(tmp_path / "not-yet")},
        "influx": {"token_file": str(tmp_path / "token"), "bucket": "condition"},
        "machines": [{"id": "m", "mode": {"topic": "t", "values": {"0": "idle"}}, "channels": [{"rate_hz": 25600}]}],
    }
    shown = Hidden().config(document)
    assert shown == {**document, "mqtt": {**document["mqtt"], "username": NAME_SET}}  # type: ignore[dict-item]


def test_short_values_do_not_tear_holes_into_every_text() -> None:
    hidden = Hidden()
    hidden.config({"mqtt": {"pin": "on", "flag": True}})
    assert hidden.scrub("the link is on") == "the link is on"


def test_every_key_of_the_configuration_is_known() -> None:
    assert {"site", "url", "password_file", "server_key_file", "rate_hz", "balls", "bands", "token_file"} <= known_keys(
        Config
    )
    assert not {"password", "token", "secret", "key", "user"} & known_keys(Config)


@given(st.text(st.characters(codec="ascii", min_codepoint=33, exclude_characters="@'\""), min_size=1, max_size=20))
def test_user_and_password_never_stay_in_a_url(userinfo: str) -> None:
    assert Hidden().scrub(f"mqtt://{userinfo}@host:1883 refuses") == f"mqtt://{HIDDEN}@host:1883 refuses"
