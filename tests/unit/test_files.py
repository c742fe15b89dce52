"""Recordings on disk become frames by one rule, or an error that says which file, which place and what to do."""

# Over 400 lines: one rule for seven file formats; each format's tests share the files that are made here.

import csv
import hashlib
import io
import json
import sys
import wave
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile

from fisher_agent.config import ChannelConfig, MachineConfig, WindowConfig
from fisher_agent.configfile import parse
from fisher_agent.errors import BadFile, ConfigError
from fisher_agent.files import end_ns, parse_channels, read, read_many
from fisher_agent.recordings import Column, RecordedFile, Snapshots, demo_recordings, load_manifest
from fisher_agent.tables import MAX_SAMPLES
from fisher_agent.wire import decoder_for

S = 1_000_000_000
T0_NS = 1_795_210_782 * S
RATE_HZ = 8000.0
STORED = np.array([[-32768, 1], [0, -2], [1, 3], [32767, -4]], np.int16)
WINDOW = WindowConfig(length_s=1.0, hop_s=0.5)


def machine(*channels: tuple[str, float], scale: float = 1.0) -> MachineConfig:
    cs = tuple(ChannelConfig(id=i, rate_hz=rate, scale=scale) for i, rate in channels)
    return MachineConfig(id="press", channels=cs)


TWO = machine(("a", RATE_HZ), ("b", RATE_HZ), scale=0.5)


def as_wav(path: Path) -> None:
    soundfile.write(path, STORED, 8000, subtype="PCM_16")


def as_npy(path: Path) -> None:
    np.save(path, STORED)


def as_npz(path: Path) -> None:
    np.savez(path, a=STORED[:, 0], b=STORED[:, 1], rate_hz=RATE_HZ)


def as_csv(path: Path) -> None:
    path.write_text("t;b;a\n" + "".join(f"{i};{b};{a}\n" for i, (a, b) in enumerate(STORED)))


def as_parquet(path: Path) -> None:
    pa.parquet.write_table(pa.table({"b": STORED[:, 1], "a": STORED[:, 0].astype(np.float64)}), path)


WRITERS = {"wav": as_wav, "flac": as_wav, "npy": as_npy, "npz": as_npz, "csv": as_csv, "parquet": as_parquet}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_scale_times_the_stored_sample(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rec.{suffix}"
    WRITERS[suffix](path)
    frames = read(path, machine=TWO, rate_hz=RATE_HZ, t0_ns=T0_NS)
    by_id = {f.channel: f for f in frames}
    assert sorted(by_id) == ["a", "b"]
    for i, channel in enumerate("ab"):
        frame = by_id[channel]
        assert (frame.machine, frame.t_ns, frame.rate_hz, frame.samples.dtype) == ("press", T0_NS, RATE_HZ, np.float32)
        assert np.array_equal(frame.samples, STORED[:, i] * 0.5)
        assert not frame.samples.flags.writeable


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_a_recording_and_its_live_stream_agree_to_the_bit(tmp_path: Path, dtype: str) -> None:
    stored = np.random.default_rng(3).integers(-32768, 32767, 4000).astype(dtype)
    np.savez(tmp_path / "rec.npz", a=stored, rate_hz=RATE_HZ)
    wire_format = {"int16": "i16le", "float32": "f32le"}[dtype]
    config = parse(
        f"""
        site = "s"
        edge = "e"
        sources = [{{ name = "x", type = "mqtt" }}]
        [[machines]]
        id = "press"
        [[machines.channels]]
        id = "a"
        rate_hz = 8000
        scale = 9.588e-7
        source = "x"
        topic = "t"
        format = "{wire_format}"
        """
    )
    (live,) = decoder_for(config, "x").decode("t", stored.tobytes(), mono_ns=S, utc_ns=T0_NS)
    (recorded,) = read(tmp_path / "rec.npz", machine=config.machine("press"), t0_ns=T0_NS)
    assert np.array_equal(recorded.samples, live.samples)


@pytest.mark.parametrize(("subtype", "largest"), [("PCM_U8", 127), ("PCM_24", 2**23 - 1), ("PCM_32", 2**31 - 1)])
def test_an_integer_wav_of_any_width_holds_its_own_integers(tmp_path: Path, subtype: str, largest: int) -> None:
    path = tmp_path / "rec.wav"
    soundfile.write(path, np.array([1.0, -1.0, 0.0]), 8000, subtype=subtype)
    (frame,) = read(path, machine=machine(("a", RATE_HZ)), t0_ns=0)
    assert np.array_equal(frame.samples, np.array([largest, -largest - 1, 0], np.float32))


def test_a_float_wav_holds_its_own_floats(tmp_path: Path) -> None:
    path = tmp_path / "rec.wav"
    soundfile.write(path, np.array([1.5, -40.25]), 8000, subtype="FLOAT")
    (frame,) = read(path, machine=machine(("a", RATE_HZ)), t0_ns=0)
    assert frame.samples.tolist() == [1.5, -40.25]


def test_a_channel_map_picks_columns_by_name_and_by_number(tmp_path: Path) -> None:
    path = tmp_path / "rec.csv"
    as_csv(path)
    frames = read(path, machine=TWO, rate_hz=RATE_HZ, channel_map={"a": "b", "b": 2}, t0_ns=0)
    assert {f.channel: f.samples[1] for f in frames} == {"a": -1.0, "b": 0.0}


def test_columns_without_names_are_the_channels_of_the_files_rate_in_order(tmp_path: Path) -> None:
    as_wav(tmp_path / "rec.wav")
    mixed = machine(("slow", 1000.0), ("x", RATE_HZ), ("y", RATE_HZ))
    frames = read(tmp_path / "rec.wav", machine=mixed, t0_ns=0)
    assert [f.channel for f in frames] == ["x", "y"]


def test_scales_of_the_recording_replace_the_configured_scale(tmp_path: Path) -> None:
    as_wav(tmp_path / "rec.wav")
    frames = read(tmp_path / "rec.wav", machine=TWO, scales={"b": 10.0}, t0_ns=0)
    assert {f.channel: f.samples[2] for f in frames} == {"a": 0.5, "b": 30.0}


def test_a_wav_with_whole_hz_feeds_a_channel_of_a_fractional_rate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "rec.wav", STORED[:, 0], 97656)
    (frame,) = read(tmp_path / "rec.wav", machine=machine(("a", 97656.25)), t0_ns=0)
    assert frame.rate_hz == 97656.25


def test_an_npz_keeps_the_time_and_rate_of_each_channel(tmp_path: Path) -> None:
    times = {"t_ns": T0_NS, "b.t_ns": T0_NS + 5, "rate_hz": RATE_HZ, "b.rate_hz": 4000.0}
    np.savez(tmp_path / "rec.npz", a=np.ones(4), b=np.ones(2), **times)
    mixed = machine(("a", RATE_HZ), ("b", 4000.0))
    assert [f.t_ns for f in read(tmp_path / "rec.npz", machine=mixed)] == [T0_NS, T0_NS + 5]
    assert [f.t_ns for f in read(tmp_path / "rec.npz", machine=mixed, t0_ns=7)] == [7, 12]


def test_a_file_without_a_time_ends_when_it_was_last_written(tmp_path: Path) -> None:
    path = tmp_path / "rec.wav"
    as_wav(path)
    assert {end_ns(f) for f in read(path, machine=TWO)} == {path.stat().st_mtime_ns}


def test_snapshots_are_frames_of_their_own_a_period_apart(tmp_path: Path) -> None:
    as_wav(tmp_path / "rec.wav")
    frames = read(tmp_path / "rec.wav", machine=TWO, t0_ns=0, snapshots=Snapshots(2, 40.0))
    assert [(f.channel, f.t_ns, len(f.samples)) for f in frames] == [
        ("a", 0, 2), ("b", 0, 2), ("a", 40_000_000_000, 2), ("b", 40_000_000_000, 2),
    ]  # fmt: skip
    with pytest.raises(BadFile, match="no whole number of snapshots of 3"):
        read(tmp_path / "rec.wav", machine=TWO, t0_ns=0, snapshots=Snapshots(3, 40.0))


def no_samples(path: Path) -> None:
    soundfile.write(path, STORED[:0], 8000)


def cut_wav(path: Path) -> None:
    as_wav(path)
    path.write_bytes(path.read_bytes()[:-8])


def cut_flac(path: Path) -> None:
    rng = np.random.default_rng(1)
    soundfile.write(path, rng.integers(-9999, 9999, (40_000, 2), np.int16), 8000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_npz(path: Path) -> None:
    as_npz(path)
    path.write_bytes(path.read_bytes()[:-40])


def misnamed_parquet(path: Path) -> None:
    as_parquet(path)
    body = path.read_bytes().replace(b"\x18\x01b", b"\x18\x01\xff")
    path.write_bytes(body)


def cut_parquet(path: Path) -> None:
    as_parquet(path)
    path.write_bytes(path.read_bytes()[:-9])


def nan_npy(path: Path) -> None:
    np.save(path, np.array([[1, 2], [3, np.nan]], np.float32))


def pickled(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)


def huge(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<i2", "fortran_order": False, "shape": (MAX_SAMPLES // 2 + 1, 2)}
    )
    with path.open("wb") as file:
        file.write(header.getvalue())
        file.truncate(len(header.getvalue()) + (MAX_SAMPLES // 2 + 1) * 4)  # sparse: takes no room


BAD_FILES = [
    ("empty.wav", lambda p: p.write_bytes(b""), "holds no samples"),
    ("header.wav", no_samples, "holds no samples"),
    ("empty.npy", lambda p: p.write_bytes(b""), "holds no samples"),
    ("empty.csv", lambda p: p.write_text(""), "holds no samples"),
    ("header.csv", lambda p: p.write_text("a,b\n"), "holds no samples"),
    ("text.wav", lambda p: p.write_text("this is no sound\n"), "not a readable wav"),
    ("text.flac", lambda p: p.write_text("this is no sound\n"), "not a readable flac"),
    ("text.npz", lambda p: p.write_text("nor is this an archive\n"), "not a readable npz"),
    ("text.npy", lambda p: p.write_text("nor is this an array\n"), "not a readable npy"),
    ("text.parquet", lambda p: p.write_text("nor is this a table, and it is long\n"), "not a readable parquet"),
    ("cut.wav", cut_wav, "cut short: it holds 2 of 4 samples"),
    ("cut.flac", cut_flac, "cut short"),
    ("cut.npz", cut_npz, "cut short"),
    ("cut.parquet", cut_parquet, "cut short"),
    ("misnamed.parquet", misnamed_parquet, "not a readable parquet file"),
    ("ulaw.wav", lambda p: soundfile.write(p, STORED, 8000, subtype="ULAW"), "ULAW, which is not lossless"),
    ("nan.csv", lambda p: p.write_text("a,b\n1,2\n3,nan\n"), "line 3: column 1 is 'nan'"),
    ("hole.csv", lambda p: p.write_text("1,2\n3,\n"), "line 2: column 1 is ''"),
    ("word.csv", lambda p: p.write_text("a,b\n1,2\n\n3,4\n5,off\n"), "line 5: column 1 is 'off'"),
    ("ragged.csv", lambda p: p.write_text("1,2\n3\n"), "line 2 has 1 cells, line 1 has 2"),
    ("bytes.csv", lambda p: p.write_bytes(b"a,b\n1,2\n\xff\xfe\n"), "is not text"),
    ("nan.npy", nan_npy, "sample 1 .from 0. of column 1 is nan"),
    ("object.npy", pickled, "not a readable npy"),
    ("cube.npy", lambda p: np.save(p, np.ones((2, 2, 2))), r"shape \(2, 2, 2\)"),
    ("complex.npy", lambda p: np.save(p, np.ones((2, 2), complex)), "complex128 values"),
    ("huge.npy", huge, "split it"),
    ("wide.npz", lambda p: np.savez(p, a=STORED, rate_hz=8000), r"'a' has shape \(4, 2\)"),
    ("rates.npz", lambda p: np.savez(p, a=STORED[:, 0], rate_hz=[1, 2]), "must each be one number"),
    ("zero.npz", lambda p: np.savez(p, a=STORED[:, 0], rate_hz=0), "rate_hz of 'a' is 0.0"),
    ("some.npz", lambda p: np.savez(p, a=STORED[:, 0], b=STORED[:, 1], **{"a.t_ns": 5}), "some of its channels"),
    ("rec.mp3", as_npy, "rec.mp3: .mp3 is no known format"),
    ("absent.wav", lambda p: None, "does not exist"),
    ("folder.wav", lambda p: p.mkdir(), "cannot be read|not a readable"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write", "message"), BAD_FILES, ids=[b[0] for b in BAD_FILES])
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, name: str, write, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / name
    if path.suffix == ".mp3":
        path.write_bytes(b"ID3")
    else:
        write(path)
    with pytest.raises(BadFile, match=message) as caught:
        read(path, machine=TWO, rate_hz=RATE_HZ, t0_ns=0)
    assert name in str(caught.value)


def test_a_rate_that_the_channel_does_not_have_names_both(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "rec.wav", STORED[:, 0], 44100)
    one = machine(("a", RATE_HZ))
    with pytest.raises(BadFile, match=r"44100 Hz.*a 8000 Hz"):
        read(tmp_path / "rec.wav", machine=one, t0_ns=0)
    with pytest.raises(BadFile, match="44100 Hz, channel 'a' is configured with 8000 Hz"):
        read(tmp_path / "rec.wav", machine=one, channel_map={"a": 0}, t0_ns=0)
    with pytest.raises(BadFile, match="says 44100 Hz, but 8000 Hz was given"):
        read(tmp_path / "rec.wav", machine=one, rate_hz=RATE_HZ, t0_ns=0)


def test_a_file_that_states_no_rate_needs_one(tmp_path: Path) -> None:
    as_npy(tmp_path / "rec.npy")
    with pytest.raises(BadFile, match="give it with --rate"):
        read(tmp_path / "rec.npy", machine=TWO, t0_ns=0)


def test_a_wrong_number_of_columns_is_not_guessed_at(tmp_path: Path) -> None:
    as_wav(tmp_path / "rec.wav")
    with pytest.raises(BadFile, match="has 2 columns, machine 'press' has 1 channels"):
        read(tmp_path / "rec.wav", machine=machine(("a", RATE_HZ)), t0_ns=0)


def test_a_missing_column_names_those_that_there_are(tmp_path: Path) -> None:
    as_csv(tmp_path / "rec.csv")
    for column in ("vib", 3, "-1"):
        with pytest.raises(BadFile, match=f"no column '?{column}'?; it has: t, b, a"):
            read(tmp_path / "rec.csv", machine=TWO, rate_hz=RATE_HZ, channel_map={"a": column}, t0_ns=0)
    with pytest.raises(ConfigError, match="no channel q; it has: a, b"):
        read(tmp_path / "rec.csv", machine=TWO, rate_hz=RATE_HZ, channel_map={"q": 0}, t0_ns=0)


def test_parquet_without_pyarrow_names_the_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_parquet(tmp_path / "rec.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'fisher-agent\[parquet\]'"):
        read(tmp_path / "rec.parquet", machine=TWO, rate_hz=RATE_HZ, t0_ns=0)


def wavs(folder: Path, *seconds: float) -> list[Path]:
    paths = [folder / f"{i}.wav" for i in range(len(seconds))]
    for path, length_s in zip(paths, seconds, strict=True):
        soundfile.write(path, np.ones(round(length_s * RATE_HZ), np.int16), 8000)
    return paths


def test_recordings_lie_on_the_grid_with_a_gap_before_each(tmp_path: Path) -> None:
    one = machine(("a", RATE_HZ))
    paths = wavs(tmp_path, 1.0, 1.2, 0.7)
    frames = list(read_many(paths, machine=one, window=WINDOW, t0_ns=T0_NS + 1))
    starts = [(f.t_ns - T0_NS) / 1e9 for f in frames]
    assert starts == [0.5, 2.0, 4.0]
    assert all(f.gap for f in frames)
    wide = list(read_many(paths, machine=one, window=WINDOW, t0_ns=T0_NS, gap_s=60.0))
    assert [(f.t_ns - T0_NS) / 1e9 for f in wide] == [0.0, 61.0, 122.5]


def test_files_of_one_recording_begin_together(tmp_path: Path) -> None:
    fast, slow, later = wavs(tmp_path, 1.0, 1.0, 1.0)
    both = machine(("a", RATE_HZ), ("b", RATE_HZ))
    files = [
        RecordedFile(fast, {"a": Column()}, recording_id="r1"),
        RecordedFile(slow, {"b": Column(), "unwired": Column(1)}, recording_id="r1"),
        RecordedFile(later, {"a": Column()}, recording_id="r2"),
    ]
    frames = list(read_many(files, machine=both, window=WINDOW, t0_ns=T0_NS))
    assert [(f.channel, f.t_ns - T0_NS) for f in frames] == [("a", 0), ("b", 0), ("a", 1_500_000_000)]


def test_a_recording_with_no_channel_of_the_machine_is_refused(tmp_path: Path) -> None:
    (path,) = wavs(tmp_path, 1.0)
    files = [RecordedFile(path, {"x": Column()})]
    with pytest.raises(BadFile, match="holds x; machine 'press' has a, b"):
        list(read_many(files, machine=TWO, window=WINDOW, t0_ns=T0_NS))


def test_a_stated_time_is_kept_unless_it_overlaps(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.npz" for i in range(2)]
    for path in paths:
        np.savez(path, a=np.ones(8000), rate_hz=RATE_HZ, t_ns=T0_NS + 3)
    one = machine(("a", RATE_HZ))
    frames = read_many(paths, machine=one, window=WINDOW)
    assert [f.t_ns - T0_NS for f in frames] == [3, 2_000_000_000]


def test_snapshots_after_the_first_are_not_marked_as_following_a_gap(tmp_path: Path) -> None:
    (path,) = wavs(tmp_path, 1.0)
    file = RecordedFile(path, {"a": Column()}, snapshots=Snapshots(2000, 40.0))
    frames = list(read_many([file], machine=machine(("a", RATE_HZ)), window=WINDOW, t0_ns=T0_NS))
    assert [f.gap for f in frames] == [True, False, False, False]


def test_channel_options_bind_simultaneous_files_and_survive_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, other = wavs(tmp_path, 1.0, 1.0, 1.0)
    monkeypatch.chdir(tmp_path)
    options = parse_channels(["a=0.wav", "b=1.wav:0"])
    assert options == [("a", str(first), "0"), ("b", str(second), "0")]
    one_each = [first, second]
    frames = read_many(one_each, machine=TWO, window=WINDOW, channel_map=json.loads(json.dumps(options)), t0_ns=T0_NS)
    assert [(f.channel, f.t_ns) for f in frames] == [("a", T0_NS), ("b", T0_NS)]
    again = parse_channels(["a=0.wav", "a=2.wav"])
    twice = read_many([first, other], machine=TWO, window=WINDOW, channel_map=again, t0_ns=T0_NS)
    assert [(f.channel, (f.t_ns - T0_NS) / 1e9) for f in twice] == [("a", 0.0), ("a", 1.5)]


def test_every_bad_channel_option_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_channels(["vib", "a=x.csv:1", "=y.csv"])
    assert len(caught.value.problems) == 2


def test_a_manifest_names_channels_scales_and_snapshots(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(
        "file,channel,sample_rate_hz,scale,channel_index,label,recording_id,segment_len,segment_period_s\n"
        "x.flac,h,25600,0.5,0,worn,r1,2560,40.0\nx.flac,v,25600,0.25,1,worn,r1,2560,40.0\ny.npy,t,10,1,0,worn,r1,,\n"
    )
    first, second = load_manifest(path)
    assert first.channels == {"h": Column(0, 0.5), "v": Column(1, 0.25)}
    assert (first.path, first.rate_hz, first.label) == (tmp_path / "x.flac", 25600.0, "worn")
    assert first.snapshots == Snapshots(2560, 40.0)
    assert second.snapshots is None


def test_a_bad_manifest_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("file,channel,sample_rate_hz,scale,channel_index\nx.flac,h,fast,0.5,0\n")
    with pytest.raises(BadFile, match=r"line 2.*'fast'"):
        load_manifest(path)
    path.write_text("file,label\n")
    with pytest.raises(BadFile, match="no column channel, sample_rate_hz"):
        load_manifest(path)


def test_the_shipped_recordings_read_as_their_manifest_says() -> None:
    files = demo_recordings()
    motor = machine(("current_low_res", 12800.0), ("current_high_res", 12800.0))
    frames = list(read_many(files, machine=motor, window=WINDOW, t0_ns=T0_NS))
    assert len(frames) == 2 * len(files)
    assert {len(f.samples) for f in frames} == {12800}
    train = [f for f in files if f.split == "train"]
    held_out = [f for f in files if f.split == "test"]
    assert {f.label for f in train} == {"aligned"} and len(train) == 10
    assert {f.label for f in held_out} == {
        "aligned", "horizontal_neg", "horizontal_pos", "vertical_neg", "vertical_pos",
    }  # fmt: skip
    rms = [float(np.sqrt(np.mean(f.samples**2))) for f in frames if f.channel == "current_low_res"]
    assert max(rms) / min(rms) < 1.2  # each file has its own scale; with a wrong one levels would differ more


def test_the_shipped_recordings_are_the_attributed_ones() -> None:
    folder = demo_recordings()[0].path.parent
    rows = list(csv.DictReader((folder / "manifest.csv").read_text().splitlines()))
    assert {r["file"] for r in rows} == {p.name for p in folder.glob("*.flac")}
    for row in rows:
        assert hashlib.sha256((folder / row["file"]).read_bytes()).hexdigest() == row["sha256"]
        assert row["licence"] == "CC BY-SA 4.0" and row["authors"] and "30349d84" in row["source"]
    attribution = (folder.parent / "ATTRIBUTION.md").read_text()
    assert "CC BY-SA 4.0" in attribution and "30349d846d5893bd060ca9a8a2a86934f7e1da63" in attribution
    assert sum(p.stat().st_size for p in folder.iterdir()) < 1_200_000


def test_a_wav_of_unstated_length_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(STORED[:, 0].tobytes())
    raw = bytearray(path.read_bytes())
    raw[40:44] = b"\xff\xff\xff\xff"  # as a recorder writes to a pipe
    path.write_bytes(raw)
    (frame,) = read(path, machine=machine(("a", RATE_HZ)), t0_ns=0)
    assert len(frame.samples) == 4
