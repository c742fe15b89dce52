"""Whatever samples a channel has, its file gives back the same bits; integers are found again where they were."""

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fisher_agent.errors import BadFile
from fisher_agent.rawfiles import npz, pack, same_bits, unpack
from fisher_agent.wire import scaled

SCALES = st.one_of(
    st.sampled_from([1.0, -1.0, 0.5, 9.588e-7, 3.3, 1e-3]),
    st.floats(1e-12, 1e6, allow_nan=False, allow_infinity=False),
)
RATES = st.sampled_from([1 / 3600, 1.0, 8000.0, 12800.5, 97656.25, 200_000.0])


@given(hnp.arrays(np.int16, st.integers(1, 300)), SCALES, RATES)
def test_16_bit_integers_come_back_as_the_live_path_gave_them(whole: np.ndarray, scale: float, rate_hz: float) -> None:
    samples = scaled(whole, scale)
    raw = pack(samples, scale=scale, rate_hz=rate_hz)
    assert same_bits(unpack(raw.body, form=raw.format, scale=scale), samples)
    assert (raw.format, raw.suffix) == ("i16", ".flac")
    integers, _ = soundfile.read(io.BytesIO(raw.body), dtype="int16")
    assert np.array_equal(integers, whole)


@given(hnp.arrays(np.int32, st.integers(1, 300), elements=st.integers(-(2**31), 2**31 - 1)), SCALES)
def test_wider_integers_come_back_whatever_their_width(whole: np.ndarray, scale: float) -> None:
    for bits in (24, 32):
        samples = scaled(whole >> (32 - bits), scale)
        raw = pack(samples, scale=scale, rate_hz=8000.0)
        assert same_bits(unpack(raw.body, form=raw.format, scale=scale), samples)


def test_24_bit_integers_are_kept_as_integers_and_32_bit_ones_as_floats() -> None:
    whole = np.array([2**23 - 1, -(2**23), 5], np.int32)
    assert pack(scaled(whole, 1e-6), scale=1e-6, rate_hz=8000.0).format == "i24"
    assert pack(scaled(whole * 2, 1e-6), scale=1e-6, rate_hz=8000.0).format == "f32"


@given(hnp.arrays(np.float32, st.integers(1, 100), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_floats_come_back_to_the_bit(samples: np.ndarray) -> None:
    raw = pack(samples, scale=1.0, rate_hz=8000.0)
    assert same_bits(unpack(raw.body, form=raw.format, scale=1.0), samples)


def test_a_negative_zero_is_no_integer() -> None:
    samples = np.array([0.0, -0.0, 3.0], np.float32)
    assert pack(samples, scale=1.0, rate_hz=8000.0).format == "f32"
    assert pack(np.abs(samples), scale=1.0, rate_hz=8000.0).format == "i16"


def test_what_is_no_such_file_is_named() -> None:
    flac = pack(scaled(np.arange(5000, dtype=np.int16), 0.5), scale=0.5, rate_hz=8000.0).body
    with pytest.raises(BadFile, match="FLAC"):
        unpack(flac[: len(flac) // 2], form="i16", scale=0.5)
    with pytest.raises(BadFile, match="where i24 is expected"):
        unpack(flac, form="i24", scale=0.5)
    with pytest.raises(BadFile, match="known are i16, i24, f32"):
        unpack(flac, form="pickle", scale=0.5)
    with pytest.raises(BadFile, match="not a readable npz"):
        unpack(flac, form="f32", scale=0.5)
    with pytest.raises(BadFile, match="without float32 `samples`"):
        unpack(npz(samples=np.zeros(3)), form="f32", scale=1.0)
    with pytest.raises(BadFile, match="not a readable npz"):
        unpack(npz(samples=np.array([{}], dtype=object)), form="f32", scale=1.0)
    with pytest.raises(BadFile, match="do not fit the scale"):
        unpack(flac, form="i16", scale=1e300)
