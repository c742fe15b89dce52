"""Takes of a manifest, conditions on its rows, and cutting into windows."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from evaluate_plants import write_set

from fisher_models.errors import RecordingError
from fisher_models.evaluate.takes import Cut, Rule, Take, read_takes, rules
from fisher_models.recordings import Recording


def test_a_take_holds_the_channels_in_the_order_asked_for(tmp_path: Path) -> None:
    takes = read_takes(write_set(tmp_path), channels=("y", "x"))
    assert len(takes) == 12
    assert [r.channel for r in takes[0].channels] == ["y", "x"]
    assert takes[0].recording == "rec_normal_a0"
    stored, _ = soundfile.read(takes[0].channels[0].path, dtype="int16")
    assert np.allclose(takes[0].samples(0), stored[:, 1] * 0.0025)


def test_conditions_choose_rows(tmp_path: Path) -> None:
    manifest = write_set(tmp_path)
    chosen = read_takes(manifest, where=rules("label=worn|loose", "specimen!=worn_a", "file!=loose_*1.wav"))
    assert [take.fields["file"] for take in chosen] == [
        "worn_b0.wav", "worn_b1.wav", "loose_a0.wav", "loose_b0.wav",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["label", "=x", "!=x", ""])
def test_a_condition_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(RecordingError, match="no condition"):
        Rule.parse(text)


def test_what_a_manifest_lacks_is_named(tmp_path: Path) -> None:
    manifest = write_set(tmp_path)
    with pytest.raises(RecordingError, match="no column 'wear'"):
        read_takes(manifest, where=rules("wear=1"))
    with pytest.raises(RecordingError, match=r"normal_a0\.wav has no channel z"):
        read_takes(manifest, channels=("x", "z"))
    with pytest.raises(RecordingError, match="no row with these channels"):
        read_takes(manifest, channels=("z",))
    with pytest.raises(RecordingError, match="no row"):
        read_takes(manifest, where=rules("label=broken"))
    manifest.write_text(manifest.read_text() + manifest.read_text().splitlines()[1] + "\n")
    with pytest.raises(RecordingError, match="lists the channel 'x' twice"):
        read_takes(manifest)


def _take(path: Path, **kwargs: object) -> Take:
    values = {"path": path, "file": path.name, "channel": "x", "index": 0, "rate_hz": 100.0, **kwargs}
    return Take({"recording_id": "r", "file": path.name}, (Recording(**values),))


def _numbers(path: Path, n: int) -> Path:
    np.save(path, np.arange(n, dtype=np.float32)[:, None])
    return path


@pytest.mark.parametrize(
    ("cut", "firsts", "length"),
    [
        (Cut(1.0), [0, 100, 200], 100),
        (Cut(1.0, 0.5), [0, 50, 100, 150, 200, 250], 100),
        (Cut(5.0), [0], 350),  # shorter than a window: one window by itself
    ],
)
def test_windows_lie_where_they_should(tmp_path: Path, cut: Cut, firsts: list[int], length: int) -> None:
    windows = cut.windows(_take(_numbers(tmp_path / "a.npy", 350)), 0)
    assert windows.shape == (len(firsts), length)
    assert windows[:, 0].tolist() == firsts
    assert (np.diff(windows, axis=1) == 1).all()


def test_no_window_spans_two_snapshots(tmp_path: Path) -> None:
    take = _take(_numbers(tmp_path / "a.npy", 350), segment_len=90, segment_period_s=60.0)
    assert Cut(0.4).windows(take, 0)[:, 0].tolist() == [0, 40, 90, 130, 180, 220]
    assert Cut(1.0).windows(take, 0).shape == (3, 90)
    with pytest.raises(RecordingError, match="not one whole snapshot"):
        Cut(1.0).windows(_take(take.channels[0].path, segment_len=400), 0)
    with pytest.raises(RecordingError, match="cannot be resampled"):
        Cut(1.0, rate_hz=50).windows(take, 0)


def test_resampling_keeps_a_tone_and_its_length(tmp_path: Path) -> None:
    t = np.arange(4 * 48_000) / 48_000
    np.save(tmp_path / "a.npy", np.sin(2 * np.pi * 440 * t).astype(np.float32))
    take = _take(tmp_path / "a.npy", rate_hz=48_000.0)
    windows = Cut(0.5, rate_hz=12_000).windows(take, 0)
    assert windows.shape == (8, 6000)
    assert np.abs(np.fft.rfft(windows[3])).argmax() == 220
    with pytest.raises(RecordingError, match="whole rates"):
        Cut(0.5, rate_hz=12_000.5).windows(take, 0)


def test_marks_beside_a_recording(tmp_path: Path) -> None:
    take = _take(_numbers(tmp_path / "a.npy", 4))
    with pytest.raises(RecordingError, match=r"a\.labels\.npy cannot be read"):
        take.anomalous()
    np.save(tmp_path / "a.labels.npy", np.array([0, 0, 1, 2], np.uint8))
    assert take.anomalous().tolist() == [False, False, True, True]
    np.save(tmp_path / "a.labels.npy", np.zeros((2, 2)))
    with pytest.raises(RecordingError, match="2 axes"):
        take.anomalous()


@pytest.mark.parametrize("values", [(0.0, None), (-1.0, None), (1.0, 0.0), (float("nan"), None)])
def test_a_cut_without_extent_is_refused(values: tuple[float, float | None]) -> None:
    with pytest.raises(RecordingError, match="must be positive"):
        Cut(*values)


def test_an_array_of_other_things_is_no_recording(tmp_path: Path) -> None:
    for array in (np.array(["a"]), np.zeros((2, 2, 2)), np.zeros(3, complex)):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(RecordingError, match="numbers"):
            _take(tmp_path / "a.npy").samples(0)
