"""Signed commands through a real broker and a real daemon."""

import json
import time
from pathlib import Path
from typing import Any

from integration.harness import BASE, Daemon, Hmi
from integration.small import HERE, call, small_config
from private import private
from servers.mosquitto import Mosquitto
from unit.test_signing import documented, signed

KEY = "a-key-of-an-integration-test-0123456789"
TOPIC = f"{HERE}/cmd/mode"


def ask(hmi: Hmi, payload: str, *, topic: str = TOPIC) -> dict[str, Any]:
    before = hmi.count(f"{topic}/result")
    hmi.publish(topic, payload, qos=0)
    return hmi.wait_for_json(f"{topic}/result", after=before)


def test_only_what_was_signed_is_obeyed_and_once(tmp_path: Path) -> None:
    key = private(tmp_path / "command.key", KEY + "\n")
    with Mosquitto(tmp_path / "broker") as broker, Hmi(broker.port) as hmi:
        config = small_config(
            tmp_path / "edge", broker_port=broker.port, mqtt=f'commands = ["mode", "ack"]\ncommand_key_file = "{key}"'
        )
        with Daemon(config) as daemon:
            daemon.wait_for_event("connected", link="commands")
            early = ask(hmi, documented()["signed"](TOPIC, KEY, mode="full"))
            assert early["ok"] == 1 or "sign it again" in early["error"]  # in its first 5 s
            hmi.wait_for_json(f"{BASE}/health", lambda health: health["uptime_s"] > 6)
            now_ms = time.time_ns() // 1_000_000
            right = documented()["signed"](TOPIC, KEY, mode="full", id="k-1")
            bare = ask(hmi, "1", topic=f"{HERE}/cmd/ack")
            assert bare["ok"] == 0 and "only signed commands" in bare["error"]
            for payload, why in [
                ('{"mode": "full"}', "only signed commands"),
                (documented()["signed"](TOPIC, KEY[::-1], mode="full"), "its hmac is wrong"),
                (documented()["signed"](TOPIC.replace("mill", "mall"), KEY, mode="full"), "its hmac is wrong"),
                (right.replace("full", "idle"), "its hmac is wrong"),
                (json.dumps(signed(topic=TOPIC, key=KEY, ts=now_ms - 61_000, mode="full")), "at most 60 s"),
            ]:
                result = ask(hmi, payload)
                assert result["ok"] == 0 and why in result["error"]
            assert ask(hmi, right)["error"] == ""
            again = ask(hmi, right)
            assert again["ok"] == 0 and "nonce was used before" in again["error"]
            assert daemon.stop() == 0
            daemon.start()
            hmi.wait_for(f"{BASE}/alive", lambda p: p == b"1", after=2)
            assert ask(hmi, right)["ok"] == 0, "not even after a restart"
            assert KEY not in daemon.log.read_text()


def test_check_and_run_refuse_a_weak_key(tmp_path: Path) -> None:
    key = private(tmp_path / "command.key", "secret")
    config = small_config(tmp_path / "edge", broker_port=1, mqtt=f'command_key_file = "{key}"')
    for verb in ("check", "run"):
        done = call(config, verb)
        assert done.returncode == 2
        assert f"mqtt.command_key_file: {key} must hold at least 32" in done.stdout + done.stderr
