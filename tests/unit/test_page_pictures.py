"""Pictures of samples and the evidence they come from: bounded, on one scale, and clear where a part is missing."""

import base64
import json
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from fisher_agent.errors import BadFile
from fisher_agent.page.evidence import Evidence
from fisher_agent.page.pictures import MAX_COLUMNS, MAX_ROWS, extremes, levels, side_by_side
from pageplant import write_capture

MILL = "mill-01"


@given(n=st.integers(32, 300_000), rate_hz=st.sampled_from([10.0, 1000.0, 25600.0, 97656.25]))
@settings(max_examples=40)
def test_a_spectrogram_is_never_larger_than_its_bound(n: int, rate_hz: float) -> None:
    found = levels(np.random.default_rng(n).normal(size=n).astype(np.float32), rate_hz)
    assert found is not None
    rows, columns = found.db.shape
    assert 1 <= rows <= MAX_ROWS and 1 <= columns <= MAX_COLUMNS
    assert np.isfinite(found.db).all()
    assert (found.seconds, found.top_hz) == (n / rate_hz, rate_hz / 2)


def test_a_tone_is_where_it_belongs() -> None:
    rate = 25600.0
    t = np.arange(5 * 25600) / rate
    late = np.where(t > 2.5, np.sin(2 * np.pi * 3000 * t), 0).astype(np.float32)
    found = levels(late + 1e-3 * np.random.default_rng(0).normal(size=len(t)).astype(np.float32), rate)
    assert found is not None
    rows, columns = found.db.shape
    row, column = np.unravel_index(np.argmax(found.db), found.db.shape)
    assert abs(row / rows * rate / 2 - 3000) < rate / 2 / rows * 2
    assert column > columns // 2
    assert found.db[row, : columns // 3].max() < found.db[row, -columns // 3 :].min() - 20


def test_two_pictures_share_one_scale() -> None:
    rng = np.random.default_rng(0)
    quiet = levels(0.01 * rng.normal(size=20_000).astype(np.float32), 8000.0)
    loud = levels(rng.normal(size=20_000).astype(np.float32), 8000.0)
    assert quiet is not None and loud is not None
    both = side_by_side({"alarmed": loud, "nearest": quiet})
    cells = {
        name: np.frombuffer(base64.b64decode(panel["cells"]), np.uint8).astype(float)
        for name, panel in both["panels"].items()
    }
    step_db = (both["high_db"] - both["low_db"]) / 255
    assert (cells["alarmed"].mean() - cells["nearest"].mean()) * step_db == pytest.approx(40, abs=3)
    assert side_by_side({})["panels"] == {}


def test_samples_that_are_no_numbers_break_no_picture() -> None:
    samples = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    samples[100], samples[200] = np.nan, np.inf
    found = levels(samples, 1000.0)
    assert found is not None and np.isfinite(found.db).all()
    low, high = extremes(samples, 100)
    assert np.isfinite(low).all() and np.isfinite(high).all()
    assert levels(samples[:10], 1000.0) is None
    nothing = levels(np.full(100, np.nan, np.float32), 1000.0)
    assert nothing is not None and np.isfinite(nothing.db).all()


@given(n=st.integers(1, 5000), columns=st.integers(1, 1200), at=st.floats(0, 1, exclude_max=True))
def test_a_single_spike_stays_in_the_waveform(n: int, columns: int, at: float) -> None:
    samples = np.zeros(n, np.float32)
    samples[int(at * n)] = 7.0
    low, high = extremes(samples, columns)
    assert len(low) == len(high) == min(n, columns)
    assert max(high) == 7.0


def test_the_alarmed_window_is_cut_out_of_the_whole(tmp_path: Path) -> None:
    write_capture(tmp_path, MILL, 1)
    evidence = Evidence(tmp_path)
    whole, alarmed = evidence.whole(MILL, 1, "vib"), evidence.alarmed(MILL, 1, "vib")
    assert (len(whole.samples), len(alarmed.samples), alarmed.unit) == (12 * 25600, 5 * 25600, "g")
    first = round((alarmed.t_ns - whole.t_ns) * 25600 / 1e9)
    assert (whole.samples[first : first + len(alarmed.samples)] == alarmed.samples).all()


def test_of_a_channel_that_sends_snapshots_the_latest_before_the_raise_is_shown(tmp_path: Path) -> None:
    folder = write_capture(tmp_path, MILL, 1)
    document = json.loads((folder / "capture.json").read_text())
    entry, end_ns = document["channels"][0], document["verdict"]["t_ns"]
    n, raised_ns = entry["n"] // 4, document["verdict"]["t_ns"]
    entry["blocks"] = [[raised_ns + round((k - 2.5) * 40e9), n, False] for k in range(4)]
    (folder / "capture.json").write_text(json.dumps(document))
    shown = Evidence(tmp_path).alarmed(MILL, 1, "vib")
    assert (len(shown.samples), shown.t_ns) == (n, end_ns - 20 * 10**9)


@pytest.mark.parametrize("name", ["vib.flac", "cur.npz", "nearest-vib.npz"])
def test_a_file_that_was_changed_is_named(tmp_path: Path, name: str) -> None:
    folder = write_capture(tmp_path, MILL, 1)
    (folder / name).write_bytes(b"junk")
    evidence = Evidence(tmp_path)
    read = evidence.nearest if name.startswith("nearest") else evidence.whole
    with pytest.raises(BadFile, match=rf"{name} is damaged"):
        read(MILL, 1, "cur" if name.startswith("cur") else "vib")


def test_occurrences_are_listed_newest_first_and_strangers_are_left_out(tmp_path: Path) -> None:
    for n in (3, 20, 1):
        write_capture(tmp_path, MILL, n)
    (tmp_path / "captures" / MILL / "now-4").mkdir()
    assert Evidence(tmp_path).occurrences(MILL) == [20, 3, 1]
    assert Evidence(tmp_path).occurrences("mill-02") == []
