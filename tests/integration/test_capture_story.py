"""A real alarm on a recorded fault leaves a capture: what was sent, to the bit, and a verdict that can be had again."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fisher_agent.captures import Capture
from fisher_agent.durable import sha256
from fisher_agent.rawfiles import same_bits
from fisher_agent.recordings import RecordedFile, demo_recordings
from fisher_agent.wire import HEADER, encode, scaled
from integration.harness import BASE, Daemon, Hmi, MqttOutlet, cli, cli_json, write_config
from servers.mosquitto import Mosquitto

MOTOR = "ugent-motor"
HERE = f"{BASE}/{MOTOR}"
ALARM = f"{HERE}/alarm/anomaly"
CHANNELS = ("current_low_res", "current_high_res")
SECOND_NS = 1_000_000_000
BLOCK = 1280
SLOWLY_S = 0.05  # of wall time for each block of 0.1 s
MACHINES = f"""
[[machines]]
id = "{MOTOR}"
[machines.defaults]
kind = "current"
unit = "A"
source = "plant"
topic = "raw/{MOTOR}/{{channel}}"
format = "fisher-frame/1"
rate_hz = 12800
[[machines.channels]]
id = "current_low_res"
scale = 9.58800012e-07
[[machines.channels]]
id = "current_high_res"
scale = 8.68770409e-06
[machines.alarm]
off_delay_windows = 200  # one occurrence, however the recordings differ
"""
SETTINGS = "[capture]\nbefore_s = 4.0\nafter_s = 2.0\n"
TOLERANCE = 1e-6  # relative; the same windows on the same backend: what remains is what the batch does to rounding


def stored(file: RecordedFile) -> np.ndarray:
    """The integers of a recording, (n, channels)."""
    samples, rate_hz = soundfile.read(file.path, dtype="int16", always_2d=True)
    assert rate_hz == 12800
    return samples


class Motor:
    """Sends recordings one after another, each beginning at a whole second and with a gap before it."""

    def __init__(self, outlet: MqttOutlet, start_ns: int) -> None:
        self.now_ns = start_ns
        self.sent: dict[str, dict[int, np.ndarray]] = {c: {} for c in CHANNELS}  # channel -> t_ns -> integers
        self._outlet = outlet
        self._seq = 0

    def play(self, file: RecordedFile) -> None:
        samples = stored(file)
        for first in range(0, len(samples), BLOCK):
            t_ns = self.now_ns + round(first * 1e9 / 12800)
            for column, channel in enumerate(CHANNELS):
                block = samples[first : first + BLOCK, column]
                self.sent[channel][t_ns] = block
                payload = encode(
                    "fisher-frame/1", block, t_ns=t_ns, rate_hz=12800.0, seq=self._seq, frame_dtype=2
                )  # fmt: skip
                self._outlet.send(f"raw/{MOTOR}/{channel}", payload)
            self._seq += 1
            time.sleep(SLOWLY_S)
        self.now_ns += 2 * SECOND_NS


@pytest.mark.slow
def test_an_alarm_leaves_a_capture_that_replays_to_the_bit_and_scores_the_same(tmp_path: Path) -> None:
    files = demo_recordings()
    train = [f for f in files if f.split == "train"]
    aligned = [f for f in files if f.split == "test" and f.label == "aligned"]
    misaligned = [f for f in files if f.split == "test" and f.label != "aligned"]
    with Mosquitto(tmp_path / "broker") as broker, Hmi(broker.port, filters=("fisher/#", "again/#")) as hmi:
        config = write_config(
            tmp_path, broker_port=broker.port, machines=MACHINES, window_s=(0.5, 0.25), extra=SETTINGS
        )
        enrolled = cli(config, "enroll", "--machine", MOTOR, "--from", *(f.path for f in train))
        assert enrolled.returncode == 0, enrolled.stderr
        outlet = MqttOutlet(broker.port)
        with Daemon(config) as daemon:
            motor = Motor(outlet, time.time_ns() // SECOND_NS * SECOND_NS)
            for file in aligned[:2]:
                motor.play(file)
            playing: Iterator[RecordedFile] = iter(misaligned)
            while not hmi_shows(hmi, "UNACK"):
                motor.play(next(playing))
            raised = hmi.wait_for_json(ALARM, lambda a: a["state"] == "UNACK")
            assert (raised["capture"], raised["capture_sha256"]) == ("", "")
            for _ in range(3):
                motor.play(next(playing))
            shown = hmi.wait_for_json(ALARM, lambda a: a["capture"] != "")
            events = [json.loads(p) for p in hmi.heard[f"{HERE}/event"]]
            again = cli_json(
                config, "replay", "--machine", MOTOR, folder_of(config, shown), "--to", "mqtt", "--prefix", "again",
                "--speed", "4",
            )  # fmt: skip
            assert daemon.stop() == 0
        outlet.close()

        # The same occurrence, shown again with what was kept of it: no transition of its own.
        assert [shown[k] for k in ("occurrence", "ts_raised")] == [raised[k] for k in ("occurrence", "ts_raised")]
        assert shown["seq"] in {e["seq"] for e in events if e["alarm"] == "anomaly"}
        assert len({(e["alarm"], e["seq"]) for e in events}) == len(events)
        assert shown["capture"] == f"{MOTOR}/{raised['occurrence']}"
        folder = folder_of(config, shown)
        assert shown["capture_sha256"] == "s" + sha256((folder / "capture.json").read_bytes())

        capture = Capture.open(folder)
        assert_it_holds_what_was_sent(capture, motor)
        assert_it_explains(capture, raised)
        assert_it_scores_the_same(config, capture)
        assert_it_replayed_to_the_bit(capture, hmi, again["messages"])
        (row,) = cli_json(config, "captures", "--machine", MOTOR)
        assert (row["capture"], row["problem"], row["occurrence"]) == (shown["capture"], "", raised["occurrence"])
        assert shown["capture"] in cli(config, "captures").stdout

        with Daemon(config):  # after a restart the alarm still names its capture
            before = hmi.count(ALARM)
            hmi.wait_for_json(ALARM, lambda a: a["capture"] == shown["capture"], after=before - 1)


def hmi_shows(hmi: Hmi, state: str) -> bool:
    return any(json.loads(p)["state"] == state for p in hmi.heard.get(ALARM, ()))


def folder_of(config: Path, alarm: dict[str, object]) -> Path:
    return config.parent / "state" / "captures" / str(alarm["capture"])


def assert_it_holds_what_was_sent(capture: Capture, motor: Motor) -> None:
    onset_ns, raised_ns = capture.document["onset_ns"], capture.document["raised_ns"]
    for entry in capture.document["channels"]:
        channel, scale = entry["id"], entry["scale"]
        assert (entry["format"], entry["file"]) == ("i16", f"{channel}.flac")
        integers, _ = soundfile.read(capture.folder / entry["file"], dtype="int16")
        kept = [t_ns for t_ns in motor.sent[channel] if onset_ns - 4.5 * 1e9 < t_ns + 10**8 and t_ns < raised_ns + 2e9]
        assert len(kept) > 20
        wanted = np.concatenate([motor.sent[channel][t_ns] for t_ns in kept])
        assert np.array_equal(integers, wanted)
        assert same_bits(capture.samples(channel), scaled(wanted, scale))
        live = {t_ns: scaled(motor.sent[channel][t_ns], scale) for t_ns in kept}
        for frame in capture.frames(channel):
            parts = [live[t] for t in kept if frame.t_ns <= t < frame.t_ns + len(frame.samples) * 1e9 / 12800 - 1e6]
            assert same_bits(frame.samples, np.concatenate(parts))
    assert {e["id"] for e in capture.document["channels"]} == set(CHANNELS)


def assert_it_explains(capture: Capture, raised: dict[str, object]) -> None:
    why = capture.document["explanation"]
    assert why["top_channel"] == raised["top_channel"]
    assert why["top_band_hz"] == pytest.approx([raised["top_band_hz_low"], raised["top_band_hz_high"]], rel=1e-5)
    assert capture.document["text"] == raised["text"]
    assert capture.document["bank"] == raised["bank"]
    for near in why["nearest"]:
        samples, rate_hz = capture.nearest(near["channel"]) or (np.zeros(0), 0.0)
        assert (len(samples), rate_hz, near["file"]) == (6400, 12800.0, f"nearest-{near['channel']}.npz")
    for channel in CHANNELS:
        for name in ("rms", "crest", "kurtosis"):
            value = why["indicators"][channel][name]
            assert value["enrolled_low"] <= value["enrolled"] <= value["enrolled_high"]
        assert len(why["octaves"][channel]["now_db"]) == len(why["octaves"][channel]["nearest_db"]) > 10
    assert why["notes"] == []


def assert_it_scores_the_same(config: Path, capture: Capture) -> None:
    rows = {round(r["t"] * 1000): r for r in cli_json(config, "score", "--machine", MOTOR, capture.folder)}
    said = capture.document["verdict"]
    again = rows[said["t_ns"] // 1_000_000]
    print(f"\nscore when raised {said['score']:.6f}, of the capture {again['score'] / said['score'] - 1:.1e} off")
    assert said["score"] >= 1
    assert again["score"] == pytest.approx(said["score"], rel=TOLERANCE)
    assert again["p_value"] == said["p_value"]


def assert_it_replayed_to_the_bit(capture: Capture, hmi: Hmi, messages: int) -> None:
    assert messages == sum(hmi.count(f"again/{MOTOR}/{c}") for c in CHANNELS)
    for channel in CHANNELS:
        parts = [np.frombuffer(p[HEADER.size :], "<f4") for p in hmi.heard[f"again/{MOTOR}/{channel}"]]
        assert same_bits(np.concatenate(parts), capture.samples(channel))
