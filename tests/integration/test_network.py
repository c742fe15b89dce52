"""A network between the agent and everything else that loses packets without a word, and a cable that is pulled.

Where this box allows no network namespaces they are skipped and say so; the chaos suite has a gateway for the same.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.gateway import Gateway
from fisher_agent.codes import State
from integration.harness import BASE, Daemon, Hmi, MqttOutlet, Sensors, cli_json
from integration.small import HERE, ROTOR, counters, small_config, state_db
from servers import network
from servers.mosquitto import Mosquitto
from servers.network import Network
from servers.process import free_port
from servers.victoria import VictoriaMetrics

REFUSED = network.refused()
pytestmark = pytest.mark.skipif(REFUSED is not None, reason=f"needs network namespaces: {REFUSED}")

KEEPALIVE_S = 4
TIMEOUT_S = 2.0


@pytest.fixture
def plant() -> Iterator[Network]:
    with Network() as plant:
        yield plant


@pytest.mark.parametrize("way", ["silent", "pulled"])
def test_a_network_that_says_nothing_is_found_out_and_costs_no_point_and_no_alarm(
    tmp_path: Path, enrolled: Path, plant: Network, way: str
) -> None:
    port = free_port()
    with (
        VictoriaMetrics(tmp_path / "db") as db,
        Gateway(db.port, host=network.HERE) as front,
        Mosquitto(tmp_path / "broker", extra=f"listener {port} {network.HERE}") as broker,
        Hmi(broker.port) as hmi,
    ):
        config = small_config(
            tmp_path / "edge",
            enrolled=enrolled,
            broker_port=port,
            influx=f'url = "http://{network.HERE}:{front.port}"\nbucket = "condition"\ntimeout_s = {TIMEOUT_S}',
        )
        text = config.read_text().replace("mqtt://127.0.0.1", f"mqtt://{network.HERE}")
        config.write_text(text.replace('url = "mqtt:', f'keepalive_s = {KEEPALIVE_S}\nurl = "mqtt:'))
        with (
            Daemon(config, inside=plant.inside) as daemon,
            Sensors(MqttOutlet(broker.port), machine=ROTOR, speed=1.0),
        ):
            hmi.wait_for(f"{HERE}/level", lambda p: p == b"0")
            hmi.wait_for(f"{HERE}/score", after=3)
            known, alive = len(daemon.events), hmi.count(f"{BASE}/alive")
            plant.silent() if way == "silent" else plant.pull()
            began_s = time.monotonic()
            try:
                for link in ("source plant", "plant", "commands"):
                    daemon.wait_for_event("unavailable", link=link, after=known, timeout_s=2 * KEEPALIVE_S + 10)
                found_s = time.monotonic() - began_s
                daemon.wait_for_event("unavailable", link="influx", after=known)
                # The plant learns it too: the broker misses the agent and sends its will.
                hmi.wait_for(f"{BASE}/alive", lambda p: p == b"0", after=alive)
            finally:
                plant.mend()
            assert found_s <= 2 * KEEPALIVE_S + 1
            for link in ("source plant", "plant", "commands", "influx"):
                daemon.wait_for_event("connected", link=link, after=known)
            hmi.wait_for(f"{HERE}/score", after=hmi.count(f"{HERE}/score") + 5)
            hmi.wait_for(f"{HERE}/level", lambda p: p == b"0", after=hmi.count(f"{HERE}/level") - 1)
            # The old session's will does not stand over the new session's word.
            assert (hmi.last(f"{BASE}/alive"), hmi.last(f"{BASE}/status")) == (b"1", b"online")
        assert daemon.wait_for_event("windows_account")["balanced"]
        anomaly = hmi.wait_for_json(f"{HERE}/alarm/anomaly")
        assert (anomaly["occurrence"], anomaly["state_code"] in (State.NORM, State.UNKNOWN)) == (0, True)
        account = counters(config, "influx")
        assert account["held"] == account["rejected"] == account["evicted"] == 0
        assert account["added"] == account["written"] > 0
        with state_db(config) as state:
            judged = {t_ns // 1_000_000 for (t_ns,) in state.execute("SELECT t_ns FROM score")}
        assert set(db.values('{__name__="fisher_score_level"}', points=len(judged))) == judged


def test_names_that_nobody_resolves_cost_neither_judging_nor_a_clean_stop(
    tmp_path: Path, enrolled: Path, plant: Network
) -> None:
    """As behind most firewalls: questions for names are dropped, and nobody can end the waiting."""
    port = free_port()
    with Mosquitto(tmp_path / "broker", extra=f"listener {port} {network.HERE}") as broker:
        config = small_config(
            tmp_path / "edge",
            enrolled=enrolled,
            broker_port=port,
            source=f"mqtt://{network.HERE}:{port}",
            influx='url = "http://database.plant.example:8428"\nbucket = "condition"',
        )
        config.write_text(config.read_text().replace("mqtt://127.0.0.1", "mqtt://broker.plant.example"))
        with Daemon(config, inside=plant.inside) as daemon, Sensors(MqttOutlet(broker.port), machine=ROTOR):
            # The first questions for names, a minute each, are still on their way.
            before = cli_json(config, "status")["windows"]
            time.sleep(10)
            said = cli_json(config, "status", timeout_s=10)
            assert said["windows"] >= before + 10
            assert set(said["degraded"]) == {"link plant", "link commands", "link influx"}
            began_s = time.monotonic()
            assert daemon.stop() == 0
            assert time.monotonic() - began_s < 10
