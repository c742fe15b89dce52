"""One machine whose sensors come from a broker and from ZeroMQ at once: its verdicts rest on both."""

from contextlib import closing
from pathlib import Path

from integration.harness import BASE, MACHINE, MILL, Daemon, Hmi, MqttOutlet, Sensors, ZmqOutlet, cli_json, write_config
from servers.mosquitto import Mosquitto

BLOCK = '[[sources]]\nname = "daq"\ntype = "zmq"\nurl = "{url}"\n'
CURRENT = 'id = "cur"\n'


class Split:
    """The current goes to ZeroMQ, everything else to the broker."""

    def __init__(self, broker: MqttOutlet, daq: ZmqOutlet) -> None:
        self._broker, self._daq = broker, daq

    def send(self, topic: str, payload: bytes) -> None:
        (self._daq if topic.endswith("/cur") else self._broker).send(topic, payload)

    def close(self) -> None:
        self._broker.close()
        self._daq.close()


def test_channels_of_two_sources_meet_in_one_verdict(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, Hmi(broker.port) as hmi:
        outlet = Split(MqttOutlet(broker.port), ZmqOutlet())
        config = write_config(
            tmp_path,
            broker_port=broker.port,
            machines=MILL.replace(CURRENT, CURRENT + 'source = "daq"\n'),
            extra=BLOCK.format(url=outlet._daq.url),
        )
        with closing(outlet), Daemon(config):
            outlet._daq.wait_for_subscriptions(1)
            with Sensors(outlet, speed=8.0):
                learnt = cli_json(config, "enroll", "--machine", MACHINE, "--duration", "25s", timeout_s=90)
                assert learnt["bank"]
                state = hmi.wait_for_json(f"{BASE}/{MACHINE}/state", lambda s: s["enrolled"] == 1 and s["running"] == 1)
                good = hmi.wait_for_json(f"{BASE}/{MACHINE}/state", lambda s: s["quality"] == "good" and s["score"] > 0)
                assert good["bank"] == state["bank"] == learnt["bank"]
