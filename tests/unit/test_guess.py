"""Guesses at a wrong setting: right where something is wrong, and none at all where everything is well."""

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from fakes import T0_NS
from fisher_agent.config import Format
from fisher_agent.configfile import parse
from fisher_agent.errors import BadPayload
from fisher_agent.guess import WIDTHS, Findings, Heard, examine
from fisher_agent.sources.synthetic import RotatingMachine
from fisher_agent.wire import decoder_for, encode

RATE_HZ = 12800.0
SECONDS = 3.0
BLOCK_S = 0.1
FULL_SCALE_G = 10.0
BITS = {"i16le": 15, "i24le": 23, "i32le": 31}
BARE = tuple(WIDTHS)

Doubles = NDArray[np.float64]
T = np.arange(round(RATE_HZ * SECONDS)) / RATE_HZ
RNG = np.random.default_rng(5)
NOISE: Doubles = RNG.normal(size=len(T))
SINE: Doubles = np.sin(2 * np.pi * 119.83 * T)


def turning_machine() -> Doubles:
    machine = RotatingMachine("m", seed=3, channels=(("vib", "vibration", RATE_HZ),))
    made = [f.samples for f in machine.frames(T0_NS, T0_NS + round(SECONDS * 1e9))]
    return np.concatenate(made).astype(np.float64)


GOOD: dict[str, Doubles] = {
    "noise": 0.3 * NOISE,
    "quiet noise": 0.01 * NOISE,
    "loud noise": 2.0 * NOISE,
    "sine": 1.5 * SINE,
    "faint sine": 0.01 * SINE,
    "sine and noise": SINE + 0.3 * NOISE,
    "noise on gravity": 1.0 + 0.01 * NOISE,
    "sine on an offset": 5.0 + 0.5 * SINE + 0.05 * NOISE,
    "below zero": -3.0 + 0.2 * NOISE,
    "impulses": 0.1 * NOISE + 0.8 * NOISE * ((T * 85) % 1 < 0.05),
    "slow drift": 0.004 * np.cumsum(NOISE),
    "uniform": RNG.uniform(-1, 1, size=len(T)),
    "a turning machine": turning_machine(),
}


def scale_of(name: str) -> float:
    return FULL_SCALE_G / 2 ** BITS[name] if name in BITS else 1.0


def counts(x: Doubles, name: str) -> Doubles:
    return np.rint(x / scale_of(name)) if name in BITS else x


def blocks(x: Doubles, block_s: float = BLOCK_S) -> list[Doubles]:
    n = round(block_s * RATE_HZ)
    return [x[i : i + n] for i in range(0, len(x) - n + 1, n)]


def payloads(x: Doubles, name: str) -> list[bytes]:
    return [encode(cast("Format", name), counts(b, name)) for b in blocks(x)]


def look(
    sent: list[bytes],
    *,
    format_: str,
    scale: float = 1.0,
    rate_hz: float = RATE_HZ,
    bound: int = 1,
    unit: str = "g",
    kind: str = "vibration",
    every_s: float = BLOCK_S,
    jitter: Callable[[int], float] = lambda _: 0.0,
    extra: str = "",
    offset_ms: float = 0.0,
) -> Findings:
    """Examine what was sent, decoded as the agent does."""
    more = "".join(
        f'[[machines.channels]]\nid = "c{n}"\nrate_hz = {rate_hz}\nsource = "s"\ntopic = "t"\nformat = "{format_}"\n'
        f"index = {n}\n{extra}\n"
        for n in range(1, bound)
    )
    config = parse(
        f'site = "s"\nedge = "e"\n[[sources]]\nname = "s"\ntype = "mqtt"\n[[machines]]\nid = "m"\n'
        f'[[machines.channels]]\nid = "c0"\nkind = "{kind}"\nunit = "{unit}"\nscale = {scale!r}\nrate_hz = {rate_hz}\n'
        f'source = "s"\ntopic = "t"\nformat = "{format_}"\n{extra}\n{more}'
    )
    decoder = decoder_for(config, "s")
    frames, rejected = [], 0
    for n, payload in enumerate(sent):
        try:
            now_ns = T0_NS + round(n * every_s * 1e9)
            frames += [f for f in decoder.decode("t", payload, mono_ns=now_ns, utc_ns=now_ns) if f.channel == "c0"]
        except BadPayload:
            rejected += 1
    channel = config.machines[0].channels[0]
    return examine(
        Heard(
            channel=channel,
            bound=bound,
            arrivals_s=[n * every_s + jitter(n) for n in range(len(sent))],
            payloads=sent,
            samples=np.concatenate([f.samples for f in frames]) if frames else np.zeros(0, np.float32),
            lengths=[len(f.samples) for f in frames],
            stated_rate_hz=frames[-1].rate_hz if frames and channel.stamped else 0.0,
            clock_offset_ms=offset_ms,
            rejected=rejected,
        )
    )


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("signal", GOOD)
def test_good_input_gives_no_guess(signal: str, name: str) -> None:
    found = look(payloads(GOOD[signal], name), format_=name, scale=scale_of(name))
    assert found.guesses == ()
    assert found.messages == 30
    assert found.rate_hz == pytest.approx(RATE_HZ, rel=0.01)


@pytest.mark.parametrize("every", [1, 3, 5, 10])
def test_bursts_of_a_gateway_are_no_wrong_rate(every: int) -> None:
    def late(n: int) -> float:
        return (every - 1 - n % every) * BLOCK_S + 0.001 * (n % every)

    assert look(payloads(GOOD["noise"], "f32le"), format_="f32le", jitter=late).guesses == ()


def test_jitter_of_a_network_is_no_wrong_rate() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        late = np.sort(rng.uniform(0, 0.08, size=30))
        found = look(payloads(GOOD["noise"], "f32le"), format_="f32le", jitter=lambda n, late=late: float(late[n]))  # type: ignore[misc]
        assert found.guesses == ()


@pytest.mark.parametrize("configured", BARE)
@pytest.mark.parametrize("sent", BARE)
@pytest.mark.parametrize("signal", ["noise", "sine", "sine and noise", "a turning machine", "quiet noise"])
def test_another_format_is_recognised(signal: str, sent: str, configured: str) -> None:
    if sent == configured:
        return
    for scale in (1.0, scale_of(configured)):
        found = look(payloads(GOOD[signal], sent), format_=configured, scale=scale)
        assert found.guesses == (f"looks like {sent}, configured {configured}",)


@pytest.mark.parametrize("configured", ["i16le", "i24le", "f64le", "i32le"])
def test_floats_that_never_change_their_sign_are_not_taken_for_good_integers(configured: str) -> None:
    found = look(payloads(GOOD["noise on gravity"], "f32le"), format_=configured)
    assert "f32le" in found.guesses[0] or "converter counts" in found.guesses[0]


@pytest.mark.parametrize("configured", [*BARE, "fisher-frame/1"])
def test_json_is_recognised(configured: str) -> None:
    sent = [encode("json", b, t_ns=T0_NS, rate_hz=RATE_HZ) for b in blocks(GOOD["noise"])]
    assert look(sent, format_=configured).guesses == (f"looks like json, configured {configured}",)


@pytest.mark.parametrize("first", [b'{"', b"FSH1"])
def test_samples_whose_first_bytes_are_letters_by_chance_are_still_samples(first: bytes) -> None:
    sent = payloads(GOOD["noise"], "i16le")
    sent[0] = first + sent[0][len(first) :]
    assert look(sent, format_="i16le", scale=scale_of("i16le")).guesses == ()


@pytest.mark.parametrize("configured", [*BARE, "json"])
def test_stamped_frames_are_recognised(configured: str) -> None:
    sent = [encode("fisher-frame/1", b, t_ns=T0_NS, rate_hz=RATE_HZ) for b in blocks(GOOD["noise"])]
    assert look(sent, format_=configured).guesses == (f"looks like fisher-frame/1, configured {configured}",)


@pytest.mark.parametrize("configured", ["json", "fisher-frame/1"])
@pytest.mark.parametrize("sent", BARE)
def test_bare_samples_are_recognised_where_stamped_ones_are_expected(sent: str, configured: str) -> None:
    found = look(payloads(GOOD["sine and noise"], sent), format_=configured)
    assert found.guesses == (f"looks like {sent}, configured {configured}",)


def test_twice_the_rate_is_another_rate_or_two_channels() -> None:
    (guess,) = look(payloads(GOOD["noise"], "f32le"), format_="f32le", rate_hz=RATE_HZ / 2).guesses
    assert "2 times the configured 6400" in guess and "interleaved" in guess


@pytest.mark.parametrize("configured", [RATE_HZ * 2, RATE_HZ * 0.8, RATE_HZ * 1.25])
def test_a_wrong_rate_is_measured(configured: float) -> None:
    (guess,) = look(payloads(GOOD["noise"], "f32le"), format_="f32le", rate_hz=configured).guesses
    assert guess.startswith("sends 128") and f"rate_hz = {configured:g}" in guess


def test_a_stated_rate_needs_no_measuring() -> None:
    sent = [encode("fisher-frame/1", b, t_ns=T0_NS, rate_hz=RATE_HZ) for b in blocks(GOOD["noise"])[:2]]
    (guess,) = look(sent, format_="fisher-frame/1", rate_hz=12000).guesses
    assert guess == "the sender states 12800 samples/s, configured rate_hz = 12000"


def test_snapshots_have_no_rate_of_arrival() -> None:
    sent = payloads(GOOD["noise"], "f32le")
    found = look(sent, format_="f32le", every_s=60.0, extra='capture = "snapshot"\nperiod_s = 60.0')
    assert found.guesses == ()


@pytest.mark.parametrize("name", ["i16le", "i24le", "i32le", "f32le", "f64le"])
def test_counts_of_a_converter_need_a_scale(name: str) -> None:
    x = np.rint(3000 * GOOD["sine and noise"])
    sent = [encode(cast("Format", name), b) for b in blocks(x)]
    (guess,) = look(sent, format_=name).guesses
    assert "converter counts? Set scale to g" in guess
    assert look(sent, format_=name, unit="counts").guesses == ()
    assert look(sent, format_=name, unit="").guesses == ()
    assert look(sent, format_=name, scale=0.001).guesses == ()


@pytest.mark.parametrize("factor", [1e-7, 1e5])
def test_a_level_that_no_machine_has_points_to_the_scale(factor: float) -> None:
    (guess,) = look(payloads(factor * GOOD["noise"], "f32le"), format_="f32le").guesses
    assert "is not plausible; check scale" in guess


def test_clipping_is_seen_and_measured() -> None:
    for x in (np.clip(SINE, -0.7, 0.7), np.clip(1.2 * SINE + 0.3 * NOISE, -1, 1), np.clip(NOISE, -1, 9)):
        found = look(payloads(x, "i16le"), format_="i16le", scale=scale_of("i16le"))
        at_rail = (x == x.min()) | ((x == x.max()) if x.max() <= 1 else False)
        assert found.clipped == pytest.approx(float(at_rail.mean()), abs=1e-3)
        assert found.guesses[0].endswith("clipped")


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3])
def test_a_sensor_that_is_not_plugged_in_is_seen(value: float) -> None:
    found = look(payloads(np.full(len(T), value), "f32le"), format_="f32le")
    assert found.guesses == ("every sample is the same: is the sensor plugged in?",)


def test_silence_is_said_with_its_topic() -> None:
    (guess,) = look([], format_="f32le").guesses
    assert "nothing was heard on 't'" in guess


def test_a_clock_that_is_off_is_said_and_a_time_zone_guessed() -> None:
    sent = [encode("fisher-frame/1", b, t_ns=T0_NS, rate_hz=RATE_HZ) for b in blocks(GOOD["noise"])]
    (zone,) = look(sent, format_="fisher-frame/1", offset_ms=3_600_200.0).guesses
    assert "+3600.2 s" in zone and "time zone?" in zone
    (off,) = look(sent, format_="fisher-frame/1", offset_ms=-47_000.0).guesses
    assert "-47.0 s" in off and "zone" not in off
    assert look(sent, format_="fisher-frame/1", offset_ms=800.0).guesses == ()


def test_what_stands_in_the_payload_of_another_shape_is_said() -> None:
    sent = [b"x" * 7 for _ in range(30)]
    (guess,) = look(sent, format_="f32le").guesses
    assert "did not parse as f32le" in guess


def test_interleaved_channels_are_measured_each() -> None:
    pair = [
        encode("i16le", np.stack([counts(b, "i16le"), 0.5 * counts(b, "i16le")])) for b in blocks(SINE + 0.3 * NOISE)
    ]
    found = look(pair, format_="i16le", scale=scale_of("i16le"), bound=2)
    assert found.guesses == ()
    assert found.rate_hz == pytest.approx(RATE_HZ, rel=0.01)
    (guess,) = look(pair, format_="i16le", scale=scale_of("i16le")).guesses
    assert "2 channels interleaved" in guess


def test_findings_are_in_the_unit_of_the_channel() -> None:
    found = look(payloads(2.0 + SINE, "i16le"), format_="i16le", scale=scale_of("i16le"))
    assert found.rms == pytest.approx(2**-0.5, rel=0.01)
    assert found.dc == pytest.approx(2.0, rel=0.01)
    assert found.peak == pytest.approx(3.0, rel=0.01)
