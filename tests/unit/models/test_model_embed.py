"""`fisher-models embed` and `export`: rows, physical values, segments, and what is refused with exit code 2."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save_file

from fisher_models.bundle import load
from fisher_models.cli import main
from fisher_models.echo import EchoConfig
from fisher_models.embed import windows
from fisher_models.execute import openvino_runner
from fisher_models.export import export
from fisher_models.families import PRESETS, seeded_state
from fisher_models.frontend import Frontend
from fisher_models.recordings import Recording, from_files, from_manifest

HEADER = "file,channel,sample_rate_hz,label,scale,channel_index,segment_len,segment_period_s\n"
RATE = 4000


@pytest.fixture
def stored() -> np.ndarray:
    return np.random.default_rng(0).integers(-8000, 8000, (6 * RATE, 2), np.int16)


@pytest.fixture
def folder(tmp_path: Path, stored: np.ndarray) -> Path:
    soundfile.write(tmp_path / "a.flac", stored, RATE, subtype="PCM_16")
    (tmp_path / "manifest.csv").write_text(
        HEADER
        + f"a.flac,x,{RATE},good,0.01,0,,\n"
        + f"a.flac,y,{RATE},worn,0.002,1,{2 * RATE},40.0\n"
        + "slow.npy,t,1,good,1,0,,\n"
    )
    return tmp_path


def _embed(*arguments: object) -> int:
    return main(["embed", "--bundle", "fisher-tiny", *map(str, arguments)])


def test_a_manifest_gives_a_row_per_window_and_channel(
    folder: Path, stored: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "out.npz"
    assert _embed("--window-s", 1.5, "--manifest", folder / "manifest.csv", "--out", out) == 0
    assert "left out 1 channels sampled below 1000 Hz" in capsys.readouterr().err
    with np.load(out, allow_pickle=False) as table:
        rows = {name: table[name] for name in table.files}
    assert set(rows) == {"file", "channel", "t_s", "rate_hz", "label", "values", "offsets"}
    assert rows["channel"].tolist() == ["x"] * 4 + ["y"] * 3
    assert rows["label"].tolist() == ["good"] * 4 + ["worn"] * 3
    assert rows["file"].tolist() == ["a.flac"] * 7
    assert rows["t_s"].tolist() == [0, 1.5, 3, 4.5, 0, 40, 80]
    assert rows["rate_hz"].tolist() == [RATE] * 7
    assert rows["offsets"].tolist() == [192 * i for i in range(8)]
    assert rows["values"].dtype == np.float32

    bundle = load("fisher-tiny")
    second_snapshot = stored[2 * RATE : 2 * RATE + 6000, 1].astype(np.float32) * np.float32(0.002)
    expected = openvino_runner(bundle)(*Frontend(bundle.frontend).bands(second_snapshot, RATE)).ravel()
    assert np.abs(rows["values"][5 * 192 : 6 * 192] - expected).max() < 1e-4


def test_torch_gives_the_same_rows(folder: Path) -> None:
    for backend in ("openvino", "torch"):
        out = folder / f"{backend}.npz"
        assert _embed("--backend", backend, "--out", out, folder / "a.flac") == 0
    with np.load(folder / "openvino.npz") as one, np.load(folder / "torch.npz") as other:
        assert np.abs(one["values"] - other["values"]).max() < 1e-4
        assert one["channel"].tolist() == other["channel"].tolist() == ["0", "1"]


@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_a_window_of_several_segments_is_the_mean_over_them(
    folder: Path, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = EchoConfig(embed_dim=64, heads=1, depth=2, max_frames=112)  # segments of 1.135 s
    state = seeded_state(config, seed=0)
    bundle = export(config, state, out=folder / "echo", weights="untrained", origin="a test")
    out = folder / "out.npz"
    given = ["--bundle", str(bundle.path), "--backend", backend, "--out", str(out), str(folder / "a.flac")]
    assert main(["embed", "--window-s", "2.5", *given]) == 0
    with np.load(out) as table:
        values, offsets = table["values"], table["offsets"]
    assert np.diff(offsets).tolist() == [2 * 64] * 4  # 51 bins are 2 bands; 2 windows of 2 channels
    wave = soundfile.read(folder / "a.flac", dtype="float32")[0][10000:20000, 0]
    segments, centres = Frontend(bundle.frontend).segments(wave, RATE)
    assert segments.shape == (3, 2, 112, 32)
    expected = np.mean([openvino_runner(bundle)(bands, centres) for bands in segments], axis=0).ravel()
    assert np.abs(values[128:256] - expected).max() < 1e-4
    for window_s in ("0", "inf", "nan"):
        assert main(["embed", "--window-s", window_s, *given]) == 2
        assert "sees more than 0" in capsys.readouterr().err


def test_rows_of_different_rates_differ_in_length(folder: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 32000)
    soundfile.write(folder / "fast.wav", noise, 16000)
    np.savez(folder / "slow.npz", vib=noise[:4000].astype(np.float32), rate_hz=2000.0)
    out = folder / "out.npz"
    assert _embed("--window-s", 2, "--out", out, folder / "fast.wav", folder / "slow.npz") == 0
    with np.load(out) as table:
        assert np.diff(table["offsets"]).tolist() == [384, 192]
        assert table["channel"].tolist() == ["0", "vib"]
        assert table["rate_hz"].tolist() == [16000, 2000]


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_the_physical_value_is_scale_times_the_stored_integer(tmp_path: Path, subtype: str) -> None:
    integers = np.array([0, 1, -1, 12345, -32768, 32767], np.int32)
    wide = integers << (16 if subtype == "PCM_16" else 8)
    soundfile.write(tmp_path / "a.wav", wide, RATE, subtype=subtype)
    recording = Recording(tmp_path / "a.wav", "a.wav", "x", 0, RATE, scale=0.5)
    assert recording.samples().tolist() == (integers * 0.5).tolist()


def test_windows_tile_and_never_span_two_snapshots() -> None:
    stream = Recording(Path("a"), "a", "x", 0, 1000.0)
    assert windows(3500, stream, 1.0) == (1000, [(0, 0.0), (1000, 1.0), (2000, 2.0)])
    assert windows(700, stream, 1.0) == (700, [(0, 0.0)])
    snapshots = Recording(Path("a"), "a", "x", 0, 1000.0, segment_len=1500, segment_period_s=60.0)
    assert windows(3500, snapshots, 1.0) == (1000, [(0, 0.0), (1500, 60.0)])
    assert windows(3500, snapshots, 0.5) == (
        500,
        [(s * 1500 + i, s * 60 + i / 1000) for s in (0, 1) for i in (0, 500, 1000)],
    )


def test_files_give_their_channels_and_manifests_their_rows(folder: Path) -> None:
    assert [(r.channel, r.rate_hz, r.scale) for r in from_files([folder / "a.flac"])] == [
        ("0", RATE, None),
        ("1", RATE, None),
    ]
    rows = from_manifest(folder / "manifest.csv")
    assert [(r.channel, r.index, r.scale, r.segment_len) for r in rows[:2]] == [
        ("x", 0, 0.01, None),
        ("y", 1, 0.002, 2 * RATE),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.flac"], "absent.flac does not exist"),
        (["notes.txt"], ".txt is no known format"),
        (["broken.flac"], "broken.flac cannot be read"),
        (["rateless.npz"], "states no rate"),
        (["slow.wav"], "sees nothing under 1000 Hz"),
        (["nan.npz"], "nan.npz, channel vib: the waveform holds NaN"),
        (["--window-s", "11", "a.flac"], "at most 10.255 s"),
        (["--window-s", "0", "a.flac"], "at most 10.255 s"),
        (["--manifest", "absent.csv"], "absent.csv cannot be read"),
        (["--manifest", "short.csv"], "lacks the columns channel_index"),
        (["--manifest", "wrong.csv"], "wrong.csv, line 2: "),
        (["--manifest", "rate.csv"], "is sampled at 4000 Hz, its manifest says 8000"),
        (["--manifest", "index.csv"], "has 2 channels"),
        (["--manifest", "empty.csv"], "lists nothing"),
        (["--manifest", "slow.csv"], "every channel of the manifest is sampled below 1000 Hz"),
        (["--manifest", "short.csv", "a.flac"], "either --manifest CSV or FILE"),
        ([], "either --manifest CSV or FILE"),
    ],
)
def test_what_cannot_be_used_is_named_and_ends_with_2(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    (folder / "notes.txt").write_text("hello")
    (folder / "broken.flac").write_bytes((folder / "a.flac").read_bytes()[:40])
    np.savez("rateless.npz", vib=np.zeros(8000, np.float32))
    np.savez("nan.npz", vib=np.full(8000, np.nan, np.float32), rate_hz=4000)
    soundfile.write("slow.wav", np.zeros(800), 200)
    Path("short.csv").write_text("file,channel,sample_rate_hz,label,scale\na.flac,x,4000,good,1\n")
    Path("wrong.csv").write_text(HEADER + "a.flac,x,fast,good,0.01,0,,\n")
    Path("rate.csv").write_text(HEADER + "a.flac,x,8000,good,0.01,0,,\n")
    Path("index.csv").write_text(HEADER + "a.flac,x,4000,good,0.01,2,,\n")
    Path("slow.csv").write_text(HEADER + "a.flac,x,10,good,0.01,0,,\n")
    Path("empty.csv").write_text(HEADER)
    assert _embed(*arguments, "--out", "out.npz") == 2
    assert message in capsys.readouterr().err
    assert not Path("out.npz").exists()
    assert not list(folder.glob(".out*"))


def test_an_output_folder_that_is_not_there_is_found_before_the_work(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _embed("--out", folder / "absent" / "out.npz", folder / "a.flac") == 2
    assert "is not a folder" in capsys.readouterr().err


def test_an_unknown_bundle_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "--bundle", "nope", "--out", str(folder / "out.npz"), str(folder / "a.flac")]) == 2
    assert "fisher-models: no bundle named 'nope'" in capsys.readouterr().err


def test_export_writes_a_bundle_from_a_state_dict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(seeded_state(PRESETS["fisher-tiny"], seed=3), tmp_path / "weights.safetensors")
    given = ["export", "--preset", "fisher-tiny", "--weights", str(tmp_path / "weights.safetensors")]
    assert main([*given, "--out", str(tmp_path / "mine")]) == 2
    assert "--standing" in capsys.readouterr().err
    assert main([*given, "--standing", "trained", "--out", str(tmp_path / "mine")]) == 0
    bundle = load(tmp_path / "mine")
    assert (bundle.name, bundle.weights, bundle.origin) == ("mine", "trained", "weights.safetensors")
    assert main([*given, "--standing", "trained", "--origin", "a run", "--out", str(tmp_path / "mine")]) == 0
    assert load(tmp_path / "mine").origin == "a run"


def test_export_writes_a_bundle_of_any_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--preset", "echo-tiny", "--seed", "0", "--out", str(tmp_path / "mine")]) == 0
    assert capsys.readouterr().out.startswith("mine b")
    bundle = load(tmp_path / "mine")
    assert (bundle.family, bundle.weights) == ("echo", "untrained")
    assert bundle.origin == "fisher-models export --preset echo-tiny --seed 0"
    unit = bundle.selftest.embedding / np.linalg.norm(bundle.selftest.embedding, axis=1, keepdims=True)
    assert (1 - unit @ unit.T)[np.triu_indices(4, 1)].min() > 1e-3


def test_export_refuses_a_file_that_holds_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"no")
    given = [
        "--weights",
        str(tmp_path / "weights.safetensors"),
        "--standing",
        "trained",
        "--out",
        str(tmp_path / "mine"),
    ]
    assert main(["export", "--preset", "fisher-tiny", *given]) == 2
    assert "is no safetensors file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["export", "--preset", "fisher-tiny", "--seed", "0", "--out", "x"], ["verify", "--golden", "."]],
    ids=["export", "verify"],
)
def test_without_torch_the_extra_is_named(tmp_path: Path, arguments: list[str]) -> None:
    code = "import sys; sys.modules['torch'] = None; from fisher_models.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "pip install 'fisher-agent[torch]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_embedding_with_openvino_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None;"
        "from fisher_models.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["embed", "--bundle", "fisher-tiny", "--out", "out.npz", "a.flac"]
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=folder, check=True, timeout=60, capture_output=True)
    assert (folder / "out.npz").exists()
