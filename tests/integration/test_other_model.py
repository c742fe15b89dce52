"""Another model behind the same agent: one line of the configuration, and the banks are carried over."""

from pathlib import Path

from fisher_models.echo import EchoConfig, seeded_state
from fisher_models.export import export
from integration.harness import BASE, MACHINE, PLAIN_MODEL, Daemon, Hmi, MqttOutlet, Sensors
from integration.small import HERE, ROTOR, call_json, small_config
from servers.mosquitto import Mosquitto

SIZES = EchoConfig(embed_dim=192, heads=3, depth=3)  # small enough to judge as fast as the other stories do


def test_an_echo_takes_over_from_a_fisher_by_one_line(tmp_path: Path, enrolled: Path) -> None:
    echo = export(SIZES, seeded_state(SIZES, seed=0), out=tmp_path / "echo", weights="untrained", origin="a test")
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        config = small_config(tmp_path / "edge", enrolled=enrolled, broker_port=broker.port)
        text = config.read_text()
        assert text.count(PLAIN_MODEL) == 1
        config.write_text(text.replace("[model]\n", f'[model]\nbundle = "{echo.path}"\n'))
        with Daemon(config) as daemon, Sensors(MqttOutlet(broker.port), machine=ROTOR) as sensors:
            rebuilt = daemon.wait_for_event("bank_rebuilt", machine=MACHINE)
            hmi.wait_for_json(f"{HERE}/state", lambda s: s["bank"] == rebuilt["bank"] and s["level"] == 0)
            assert float(hmi.wait_for(f"{HERE}/score", after=hmi.count(f"{HERE}/score"))) < 1
            assert call_json(config, "status")["model"] == echo.digest
            sensors.fault_now()
            raised = hmi.wait_for_json(
                f"{HERE}/event", lambda e: (e["alarm"], e["active"]) == ("anomaly", 1), timeout_s=60
            )
            assert (raised["top_channel"], raised["model"]) == ("vib", echo.digest)
            assert hmi.wait_for(f"{BASE}/status", lambda p: p == b"online")
