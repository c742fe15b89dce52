"""What the demo's plant consists of: one generated machine with three sensors, one real motor, one configuration."""

from dataclasses import replace
from pathlib import Path

from fisher_agent.config import Config
from fisher_agent.configfile import parse
from fisher_agent.recordings import RecordedFile, demo_recordings

MILL, MOTOR = "mill-01", "ugent-motor"
BLOCK_S = 0.5
ENROLL_S = 150.0  # event time of normal running that is learnt
NORMAL_S = 90.0  # event time of normal running that is then watched
PATIENCE_S = 120.0  # event time after the fault's onset in which the alarm must come
CONFIG = """
site = "demo"
edge = "edge-1"
state_dir = "{state_dir}"
control_socket = "{state_dir}/ctl.sock"

[window]
length_s = 1.0
hop_s = 0.5

[mqtt]
url = "mqtt://127.0.0.1:{port}"
version = "3.1.1"
keepalive_s = 15

[page]
port = {page_port}

[[sources]]
name = "plant"
type = "mqtt"
url = "mqtt://127.0.0.1:{port}"
version = "3.1.1"

[[machines]]
id = "mill-01"
[machines.defaults]
source = "plant"
topic = "demo/{{machine}}/{{channel}}"
format = "fisher-frame/1"
[[machines.channels]]
id = "vib"
kind = "vibration"
unit = "g"
rate_hz = 25600
[[machines.channels]]
id = "cur"
kind = "current"
unit = "A"
rate_hz = 12800
[[machines.channels]]
id = "mic"
kind = "sound"
unit = "Pa"
rate_hz = 16000

[[machines]]
id = "ugent-motor"
[machines.defaults]
kind = "current"
source = "plant"
topic = "demo/{{machine}}/{{channel}}"
format = "fisher-frame/1"
rate_hz = 12800
stale_s = 86400
[[machines.channels]]
id = "current_low_res"
[[machines.channels]]
id = "current_high_res"
"""


def configuration(port: int, state_dir: Path | str, *, page_port: int = 8420) -> Config:
    """The demo's configuration; the motor never counts as stale, for its recordings end."""
    return parse(CONFIG.format(port=port, state_dir=state_dir, page_port=page_port))


def enrolled() -> list[RecordedFile]:
    """The real recordings that are learnt: aligned, repetitions 1 to 5, each a recording of its own."""
    return [replace(f, recording_id="") for f in demo_recordings() if f.split == "train"]


def held_out() -> list[RecordedFile]:
    """The real recordings that are played: repetitions 6 and 7, the aligned ones first."""
    files = [replace(f, recording_id="") for f in demo_recordings() if f.split == "test"]
    return sorted(files, key=lambda f: f.label != "aligned")
