"""CPU per message of our MQTT source against mosquitto_sub (and aiomqtt, for comparison), all on the same broker.

    python tests/bench/bench_ingest.py [--messages 4000] [--bytes 20000] [--rounds 3] [--json]

Every reader is its own process that subscribes to the same topic at the same time; its CPU is its time on a CPU between
the first and the last message, so start-up does not count. The readers of a round are paired: they read the same
messages at the same rate. The best round of each counts, since what disturbs only ever adds.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import aiomqtt
import numpy as np
import paho.mqtt.client as paho

from fisher_agent.configfile import parse
from fisher_agent.sources import open_source
from fisher_agent.stats import Stats
from servers.mosquitto import Mosquitto
from servers.process import find_binary

TOPIC = "plant/press/vib"
CONFIG = """
site = "bench"
edge = "bench"
[[sources]]
name = "plant"
type = "mqtt"
url = "{url}"
version = "{version}"
[[machines]]
id = "press"
[[machines.channels]]
id = "vib"
rate_hz = 25600
source = "plant"
topic = "plant/press/vib"
scale = 0.5
"""


async def read_ours(url: str, version: str, count: int) -> None:
    """Our source with decoding."""
    config = parse(CONFIG.format(url=url, version=version))
    seen = 0
    async with open_source(config.sources[0], config, client_id=f"ours-{version}", stats=Stats()) as source:
        print("ready", flush=True)
        async for frames in source.frames():
            seen += len(frames)
            if seen >= count:
                return


async def read_aiomqtt(url: str, version: str, count: int) -> None:
    """aiomqtt with what decoding costs at least."""
    protocol = aiomqtt.ProtocolVersion.V5 if version == "5" else aiomqtt.ProtocolVersion.V311
    port = int(url.rsplit(":", 1)[1])
    seen = 0
    async with aiomqtt.Client("127.0.0.1", port, identifier=f"aiomqtt-{version}", protocol=protocol) as client:
        await client.subscribe(TOPIC)
        print("ready", flush=True)
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            seen += bool(np.isfinite(np.frombuffer(message.payload, "<f4") * np.float32(0.5)).all())
            if seen >= count:
                return


READERS = {"ours": read_ours, "aiomqtt": read_aiomqtt}


def start(kind: str, url: str, version: str, count: int) -> subprocess.Popen[bytes]:
    """One reader process, subscribed."""
    if kind == "mosquitto_sub":
        binary = find_binary("mosquitto_sub", package="mosquitto-clients")
        protocol = "mqttv5" if version == "5" else "mqttv311"
        port = url.rsplit(":", 1)[1]
        command = [binary, "-p", port, "-t", TOPIC, "-C", str(count + 1), "-N", "-V", protocol, "-i", f"sub-{version}"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)
    command = [sys.executable, __file__, "--read", kind, url, version, str(count + 1)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def cpu_s(pid: int) -> float:
    """Time on a CPU of all threads of a process so far; /proc/PID/stat would round it to 10 ms."""
    return sum(int(p.read_text().split()[0]) for p in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def one_round(url: str, version: str, *, count: int, payload: bytes, rate: float) -> dict[str, float]:
    """CPU seconds per message of each reader."""
    kinds = ["mosquitto_sub", *READERS]
    processes = {kind: start(kind, url, version, count) for kind in kinds}
    publisher = paho.Client(paho.CallbackAPIVersion.VERSION2)
    publisher.connect("127.0.0.1", int(url.rsplit(":", 1)[1]))
    publisher.loop_start()
    time.sleep(1.0)  # subscribed and idle: what starting costs is over
    before = {kind: cpu_s(p.pid) for kind, p in processes.items()}
    begin = time.perf_counter()
    for k in range(count):
        publisher.publish(TOPIC, payload).wait_for_publish(30)
        if (ahead_s := begin + (k + 1) / rate - time.perf_counter()) > 0:
            time.sleep(ahead_s)
    time.sleep(0.5)
    used = {kind: (cpu_s(p.pid) - before[kind]) / count for kind, p in processes.items()}
    publisher.publish(TOPIC, payload).wait_for_publish(30)  # the last one ends the readers
    for process in processes.values():
        assert process.wait(30) == 0
        if process.stdout:
            process.stdout.close()
    publisher.disconnect()
    publisher.loop_stop()
    return used


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=4000, help="per round")
    parser.add_argument("--bytes", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=1000.0, help="messages per second")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--read", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        kind, url, version, count = options.read
        asyncio.run(READERS[kind](url, version, int(count)))
        return
    payload = np.random.default_rng(0).standard_normal(options.bytes // 4).astype("<f4").tobytes()
    report: dict[str, object] = {"bytes": options.bytes, "rate": options.rate, "cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder, Mosquitto(Path(folder)) as broker:
        for version in ("3.1.1", "5"):
            rounds = [
                one_round(broker.url, version, count=options.messages, payload=payload, rate=options.rate)
                for _ in range(options.rounds)
            ]
            best = {kind: min(r[kind] for r in rounds) * 1e6 for kind in rounds[0]}
            report[version] = {
                "us_per_message": {kind: round(us, 1) for kind, us in best.items()},
                "ratio": {kind: round(best[kind] / best["mosquitto_sub"], 2) for kind in READERS},
            }
            if not options.json:
                for kind, us in best.items():
                    print(f"MQTT {version:5}  {kind:14} {us:7.1f} us/message  x {us / best['mosquitto_sub']:.2f}")
    if options.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
