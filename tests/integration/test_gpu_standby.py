"""The daemon with TensorRT configured: the CPU serves first, the GPU takes over, and its loss stops nothing.

With stand-ins for TensorRT and pycuda; everything else, the child process that builds too, is real.
"""

from pathlib import Path

import pytest

from halved import GPUFAKES, halved_bundle
from integration.harness import BASE, MACHINE, Daemon, Hmi, MqttOutlet, Sensors, cli_json
from integration.small import ROTOR, cli, record, small_config
from servers.mosquitto import Mosquitto


@pytest.fixture
def unplug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A box with a GPU that fails as soon as this file says so."""
    file = tmp_path / "unplugged"
    monkeypatch.setenv("PYTHONPATH", str(GPUFAKES))
    monkeypatch.setenv("FAKE_TRT_FILE", str(file))
    return file


def _config(folder: Path, port: int) -> Path:
    bundle = halved_bundle(folder / "fisher-tiny")
    model = f'[model]\nbundle = "{bundle.path}"\nbackend = "tensorrt"\nthreads = 1'
    return small_config(folder, broker_port=port, extra=model)


def test_the_gpu_takes_over_and_is_lost_while_the_machine_is_judged(tmp_path: Path, unplug: Path) -> None:
    broker = Mosquitto(tmp_path)
    with broker, Hmi(broker.port) as hmi:
        config = _config(tmp_path, broker.port)
        done = cli(config, "enroll", "--machine", MACHINE, "--from", record(tmp_path / "normal.npz", seconds=40))
        assert done.returncode == 0, done.stderr
        (engine,) = (tmp_path / "state/cache/engines").glob("*.engine")
        assert cli_json(config, "build-engine") == {"engine": str(engine)}

        with Daemon(config) as daemon, Sensors(MqttOutlet(broker.port), machine=ROTOR):
            first = daemon.wait_for_event("model")
            assert (first["backend"], first["precision"]) == ("openvino", "f32")
            assert "tensorrt is being prepared" in first["note"]
            daemon.wait_for_event("model", backend="tensorrt", precision="f16")
            hmi.wait_for(f"{BASE}/{MACHINE}/state", after=hmi.count(f"{BASE}/{MACHINE}/state") + 3)
            status = cli_json(config, "status")
            assert (status["backend"], status["precision"], status["fallback"]) == ("tensorrt", "f16", 0)
            assert "backend" not in status["degraded"]
            assert status["machines"][MACHINE]["enrolled"] and status["machines"][MACHINE]["score"] is not None

            unplug.write_text("lost")
            daemon.wait_for_event("gpu_lost")
            daemon.wait_for_event("model", backend="openvino", precision="f32", device=first["device"])
            hmi.wait_for(f"{BASE}/{MACHINE}/state", after=hmi.count(f"{BASE}/{MACHINE}/state") + 3)
            status = cli_json(config, "status")
            assert status["status"] == "degraded" and "the GPU was lost" in status["degraded"]["backend"]
            assert (status["backend"], status["fallback"]) == ("openvino", 1)
            assert status["machines"][MACHINE]["score"] is not None  # its bank of float16 is judged by float32

            assert daemon.stop() == 0
        account = [e for e in daemon.events if e["event"] == "windows_account"]
        assert [e["balanced"] for e in account] == [True]


def test_a_box_whose_gpu_is_away_runs_on_its_cpu_and_says_so(tmp_path: Path, unplug: Path) -> None:
    unplug.write_text("no-device")
    broker = Mosquitto(tmp_path)
    with broker:
        config = _config(tmp_path, broker.port)
        with Daemon(config) as daemon:
            daemon.wait_for_event("gpu_unusable")
            daemon.wait_for_event("serving", backend="openvino")
            status = cli_json(config, "status")
            assert status["backend"] == "openvino"
            assert "no CUDA-capable device is detected" in status["degraded"]["backend"]
    failed = cli(config, "build-engine")
    assert failed.returncode == 1 and "no CUDA-capable device is detected" in failed.stderr


def test_a_stop_ends_a_build(tmp_path: Path, unplug: Path) -> None:
    unplug.write_text("hang")
    broker = Mosquitto(tmp_path)
    with broker, Daemon(_config(tmp_path, broker.port)) as daemon:
        assert daemon.stop() == 0
