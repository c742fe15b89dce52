"""No secret is said anywhere: a whole agent that uses one of every kind, and everything that it ever says."""

import http.client
import json
from pathlib import Path

from paho.mqtt.subscribe import simple

from integration.harness import BASE, Daemon, cli
from integration.small import small_config
from private import private
from servers.influxdb import InfluxDB
from servers.mosquitto import Mosquitto
from servers.process import free_port

PASSWORD, TOKEN, PAGE = "mqtt-password-7f3a", "boss:influx-password-91c2", "page-token-5e44-0123456789"


def page(port: int, path: str, *, method: str = "GET", body: str = "", cookie: str = "") -> tuple[str, str]:
    """Headers and body of an answer, as text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    ours = {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json", "X-Fisher": "1", "Cookie": cookie}
    connection.request(method, path, body or None, ours)
    answer = connection.getresponse()
    said = str(answer.headers), answer.read().decode()
    connection.close()
    return said


def test_a_whole_agent_says_none_of_its_secrets(tmp_path: Path) -> None:
    port = free_port()
    secrets = {"mqtt": PASSWORD, "influx": TOKEN, "page": PAGE}
    files = {name: private(tmp_path / name, f"{text}\n") for name, text in secrets.items()}
    login = f'username = "fisher"\npassword_file = "{files["mqtt"]}"\n'
    with (
        Mosquitto(tmp_path / "broker", passwords={"fisher": PASSWORD}) as broker,
        InfluxDB(tmp_path / "db", auth=True) as db,
    ):
        name, _, password = TOKEN.partition(":")
        db.query(f"CREATE USER {name} WITH PASSWORD '{password}' WITH ALL PRIVILEGES")
        db.query("CREATE DATABASE condition", user=name, password=password)
        config = small_config(
            tmp_path / "edge",
            broker_port=broker.port,
            mqtt=login,
            influx=f'url = "{db.url}"\nbucket = "condition"\ntoken_file = "{files["influx"]}"',
            extra=f'[log]\nlevel = "debug"\n[page]\nport = {port}\ntoken_file = "{files["page"]}"',
        )
        text = config.read_text()
        config.write_text(text.replace('type = "mqtt"\n', f'type = "mqtt"\n{login}'))
        said = [cli(config, "check", "--connect", "--seconds", "1"), cli(config, "check", "--json")]
        with Daemon(config) as daemon:
            for link in ("influx", "plant", "commands", "source plant"):
                daemon.wait_for_event("connected", link=link)
            said.append(cli(config, "status", "--json"))
            assert json.loads(said[-1].stdout)["status"] == "online"
            headers, _ = page(port, "/api/login", method="POST", body=json.dumps({"token": PAGE}))
            cookie = headers.lower().partition("set-cookie: ")[2].partition(";")[0]
            shown = [headers, *page(port, "/api/overview", cookie=cookie), *page(port, "/", cookie=cookie)]
            assert '"machines"' in shown[2], "the page let us in"
            auth = {"username": "fisher", "password": PASSWORD}
            broker_at = {"hostname": "127.0.0.1", "port": broker.port, "auth": auth}
            shown += [simple(f"{BASE}/{topic}", **broker_at).payload.decode() for topic in ("health", "status")]
            assert daemon.stop() == 0
        everything = [daemon.log.read_text(), *shown, *(s.stdout + s.stderr for s in said)]
    kept = [path for path in (tmp_path / "edge" / "state").rglob("*") if path.is_file()]
    everything += [path.read_bytes().decode("latin-1") for path in kept]
    for secret in (PASSWORD, password, TOKEN, PAGE):
        assert not [text for text in everything if secret in text]
