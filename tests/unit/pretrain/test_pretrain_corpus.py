"""The generator makes what its physics say: rates of impulses, sidebands, harmonics, spectra, levels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fisher_models.pretrain import seeds
from fisher_models.pretrain.corpus import (
    bearings,
    electrical,
    flow,
    gears,
    impulses,
    machine,
    modes,
    motion,
    noise,
    rotor,
    rows,
    sensor,
    signals,
    surroundings,
    transients,
)  # fmt: skip
from fisher_models.pretrain.corpus.draws import Draws
from fisher_models.pretrain.corpus.span import Span

RATE = 20_000.0
SHARES: dict[machine.Kind, float] = {"vibration": 0.4, "sound": 0.3, "current": 0.3}


def _draws(seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def _span(seconds: float = 4.0, rate_hz: float = RATE, seed: int = 0) -> Span:
    return Span.holding(round(seconds * rate_hz), rate_hz=rate_hz, noise=torch.Generator().manual_seed(seed))


def _constant(hz: float, n: int = 1) -> motion.Motion:
    """A motion that neither wanders nor ramps."""
    drawn = motion.draw(_draws(), n, ramps=0.0)
    still = {name: torch.zeros_like(getattr(drawn, name)) for name in ("wander", "ripple", "load", "ramp")}
    return replace(drawn, shaft_hz=torch.full((n,), hz), **still)


def _peaks(signal: Tensor, span: Span, count: int) -> list[float]:
    """Frequencies of the strongest lines, ascending."""
    window = np.hanning(span.samples)
    power = np.abs(np.fft.rfft(signal.numpy() * window))
    found = []
    for _ in range(count):
        at = int(power.argmax())
        found.append(at * span.rate_hz / span.samples)
        power[max(0, at - 6) : at + 7] = 0
    return sorted(found)


def test_a_phase_turns_as_fast_as_the_shaft_times_its_order() -> None:
    span = _span()
    moving = motion.course(motion.draw(_draws(), 3, ramps=1.0), span)
    for order in (1.0, 7.3, 120.0):
        steps = moving.phase(order, torch.arange(3), span).double().diff(dim=1)
        steps -= steps.round()
        total = (moving.turns[:, -1] - moving.turns[:, 0]) * order
        at_end = len(span.knots_s()) - 1
        assert torch.allclose(steps.sum(1) / span.samples * at_end * span.knot, total, rtol=2e-3)
        jump = steps.abs().amax(1)
        assert (jump <= order * moving.fastest_hz / RATE * 1.01 + 1e-4).all(), "the phase has no jumps"


def test_a_shaft_makes_harmonics_of_its_speed_and_looseness_half_orders() -> None:
    span = _span()
    moving = motion.course(_constant(31.0), span)
    drawn = rotor.draw(_draws(), torch.ones(1), torch.zeros(1))
    assert all(
        hz / 31 == pytest.approx(round(hz / 31), abs=0.02)
        for hz in _peaks(rotor.render(drawn, torch.arange(1), moving, span)[0], span, 3)
    )
    loose = replace(drawn, level=torch.zeros(1), loose=torch.ones(1))
    orders = [hz / 15.5 for hz in _peaks(rotor.render(loose, torch.arange(1), moving, span)[0], span, 50)]
    assert all(order == pytest.approx(round(order), abs=0.03) for order in orders)
    assert any(round(order) % 2 for order in orders)


def test_nothing_is_made_above_nyquist() -> None:
    span = _span(rate_hz=1000.0)
    moving = motion.course(_constant(97.0), span)
    made = rotor.render(rotor.draw(_draws(), torch.ones(1), torch.ones(1)), torch.arange(1), moving, span)[0]
    for hz in _peaks(made, span, 8):
        assert hz / 48.5 == pytest.approx(round(hz / 48.5), abs=0.03), "a line between orders would have folded back"


def test_gears_mesh_at_teeth_times_speed_with_sidebands_of_both_shafts() -> None:
    span = _span()
    moving = motion.course(_constant(20.0), span)
    drawn = replace(
        gears.draw(_draws(3), torch.ones(1), torch.zeros(1)),
        order=torch.ones(1), ratio=torch.tensor([0.4]), wheel=torch.tensor([0.5]),
    )  # fmt: skip
    teeth = int(drawn.series.abs()[0, :61].argmax())
    power = np.abs(np.fft.rfft(gears.mesh(drawn, torch.arange(1), moving, span)[0].numpy() * np.hanning(span.samples)))

    def line(hz: float) -> float:
        at = round(hz * span.samples / RATE)
        return float(power[at - 3 : at + 4].max())

    mesh = teeth * 20.0
    assert line(mesh) == power[: round(1.3 * mesh * span.samples / RATE)].max()
    for side in (20.0, 8.0):  # pinion, wheel
        assert line(mesh + side) > 20 * line(mesh + 0.5 * side)


@pytest.mark.parametrize("where", [bearings.OUTER, bearings.INNER, bearings.BALL, bearings.CAGE])
def test_a_bearing_strikes_at_the_rate_of_its_geometry(where: int) -> None:
    drawn = replace(
        bearings.draw(_draws(5), torch.ones(4)), where=torch.full((4,), where), jitter=torch.full((4,), 0.01)
    )
    moving, span = motion.course(_constant(30.0, 4), _span()), _span()
    struck = bearings.knocks(drawn, torch.arange(4), torch.full((4,), 30.0), moving, span) > 0
    events = (struck[:, 1:] & ~struck[:, :-1]).sum(1) / span.length_s
    expected = 30.0 * bearings.rate(drawn, torch.arange(4))
    assert torch.allclose(events.float(), expected, rtol=0.03)


def test_bearing_rates_are_those_of_a_known_bearing() -> None:
    """SKF 6205: 9 balls, d/D 0.2034, contact angle 0 -> 3.585, 5.415, 2 x 2.357, 0.398 turns (CWRU's table)."""
    slope = torch.tensor([0.2034])
    drawn = bearings.draw(_draws(), torch.ones(1))
    cage = (1 - slope) / 2
    assert float(9 * cage) == pytest.approx(3.585, abs=0.002)
    ratio = drawn.orders[0, bearings.OUTER] + drawn.orders[0, bearings.INNER]
    assert float(ratio) == pytest.approx(round(float(ratio)), abs=1e-3), "BPFO + BPFI is the number of balls"
    balls = float(ratio)
    slope_of = 1 - 2 * float(drawn.orders[0, bearings.CAGE])
    assert float(drawn.orders[0, bearings.OUTER]) == pytest.approx(balls * (1 - slope_of) / 2, rel=1e-4)
    assert float(drawn.orders[0, bearings.BALL]) == pytest.approx((1 - slope_of**2) / slope_of, rel=1e-3)


def test_an_inner_race_is_modulated_by_the_load_zone_and_an_outer_one_hardly() -> None:
    drawn = replace(bearings.draw(_draws(1), torch.ones(1)), jitter=torch.full((1,), 1e-3), spread=torch.zeros(1))
    span = _span()
    moving = motion.course(_constant(25.0), span)

    def swing(where: int, depth: float) -> float:
        one = replace(drawn, where=torch.tensor([where]), depth=torch.full((1, 4), depth))
        hits = bearings.knocks(one, torch.arange(1), torch.tensor([25.0]), moving, span)[0]
        first = (hits[1:-1] > 0) & (hits[:-2] == 0)
        sizes = (hits[1:-1] + hits[2:])[first]
        return float(sizes.std() / sizes.mean())

    assert swing(bearings.INNER, 0.9) > swing(bearings.INNER, 0.1) * 2


def test_impulses_at_a_steady_rate_are_evenly_spaced_and_split_between_two_samples() -> None:
    span = _span(1.0)
    moving = motion.course(_constant(100.0), span)
    none = torch.zeros(1)
    hits = impulses.train(moving.turns, none, none, span)[0]
    assert float(hits.sum()) == pytest.approx(100, abs=1.01)
    places = torch.nonzero(hits).flatten()
    centres = [
        float((hits[p] * p + hits[p + 1] * (p + 1)) / (hits[p] + hits[p + 1])) for p in places[:-1] if hits[p - 1] == 0
    ]
    assert np.allclose(np.diff(centres), 200.0, atol=0.02)


def test_a_mode_rings_at_its_frequency_for_as_long_as_its_damping_says() -> None:
    span = _span(1.0)
    one = modes.Modes(torch.full((1, 1), 3000.0), torch.full((1, 1), 0.01), torch.ones(1, 1), torch.zeros(1))
    ring = torch.fft.irfft(modes.response(one, span), n=span.samples)[0]
    assert _peaks(ring, span, 1)[0] == pytest.approx(3000, rel=0.01)
    early, late = ring[200:400].abs().max(), ring[1200:1400].abs().max()  # 50 ms later
    assert float(early / late) == pytest.approx(np.exp(2 * np.pi * 3000 * 0.01 * 0.05), rel=0.1)
    assert ring[-2000:-50].abs().max() < 1e-3 * ring.abs().max(), "causal, but for the ringing of a band limit"


def test_noise_has_its_level_and_a_leak_its_hump() -> None:
    span = _span()
    drawn = noise.draw(_draws(), torch.full((3,), 0.5), torch.tensor([0.0, 2.0, 0.0]), rate_hz=RATE)
    made = torch.fft.irfft(noise.transform(drawn, span), n=span.samples)
    assert torch.allclose(made.square().mean(1).sqrt(), torch.tensor([0.5, (0.25 + 4) ** 0.5, 0.5]), rtol=0.05)
    assert float(made.mean(1).abs().max()) < 1e-4


def test_a_rub_scrapes_once_per_turn_and_cavitation_swings_with_the_blades() -> None:
    span = _span()
    moving = motion.course(_constant(12.0), span)
    drawn = flow.Bursts(*(torch.tensor([v]) for v in (1.0, 20.0, 1.0, 6.0, 0.8, 0.0)))
    for signal, hz in ((flow.rubbing, 12.0), (flow.cavitating, 72.0)):
        envelope = signal(drawn, torch.arange(1), moving, span)[0].square()
        assert _peaks(envelope - envelope.mean(), span, 1)[0] == pytest.approx(hz, rel=0.02)


def test_a_current_holds_its_supply_and_the_sidebands_of_a_mechanical_fault() -> None:
    drawn, shaft_hz = electrical.draw(_draws(2), torch.ones(1))
    drawn = replace(
        drawn, supply_hz=torch.tensor([50.0]), fault=torch.tensor([0.1]), carrier=torch.zeros(1), bars=torch.zeros(1),
        side=torch.zeros(1, 3),
    )  # fmt: skip
    span = _span()
    moving = motion.course(replace(_constant(24.3), load=torch.zeros(1, 3)), span)
    made = electrical.render(drawn, torch.arange(1), moving, span)[0]
    power = np.abs(np.fft.rfft(made.numpy() * np.hanning(span.samples)))
    at = {
        hz: power[round(hz * span.samples / RATE) - 2 : round(hz * span.samples / RATE) + 3].max()
        for hz in (50.0, 25.7, 74.3)
    }
    assert at[50.0] == power.max()
    for side in (25.7, 74.3):
        assert at[side] / at[50.0] == pytest.approx(0.05, rel=0.15)
    pole_pairs = 1 / (shaft_hz / electrical.draw(_draws(2), torch.ones(1))[0].supply_hz)
    assert 0 < float(pole_pairs - pole_pairs.floor()) < 0.3, "an induction machine slips behind its supply"


def test_random_knocks_come_as_often_as_they_should() -> None:
    drawn = transients.draw(_draws(), torch.ones(40), torch.zeros(40), torch.zeros(40))
    drawn = replace(drawn, knock_hz=torch.full((40,), 10.0))
    made = transients.knocks(drawn, torch.arange(40), _span(2.0))
    events = ((made[:, 1:] > 0) & (made[:, :-1] == 0)).sum(1).float()
    assert float(events.mean()) == pytest.approx(20, rel=0.15)
    assert float(events.var()) == pytest.approx(20, rel=0.7), "as scattered as a Poisson process"


def test_a_room_has_its_reverberation_and_keeps_the_direct_sound() -> None:
    span = _span(2.0)
    drawn = replace(
        surroundings.draw(_draws(), torch.ones(1), torch.zeros(1), torch.zeros(1)), reverberation_s=torch.tensor([0.5])
    )
    tail = torch.fft.irfft(surroundings.room(drawn, torch.arange(1), span), n=span.samples)[0]
    assert float(tail[0]) == pytest.approx(1, abs=0.1)
    assert float(tail[1:].square().sum()) == pytest.approx(1, rel=0.1)
    late = tail[10_000:12_000].square().mean() / tail[100:2100].square().mean()
    assert float(10 * torch.log10(late)) == pytest.approx(-60 * 0.495 / 0.5, abs=3)


def test_a_converter_clips_and_rounds_to_its_steps() -> None:
    drawn = replace(
        sensor.draw(_draws(), 1, clipping=0.0), full_scale=torch.ones(1), step=torch.full((1,), 0.25),
        floor=torch.zeros(1), level=torch.full((1,), 2.0),
    )  # fmt: skip
    span = _span(0.1)
    made = sensor.converted(drawn, 3 * torch.sin(torch.arange(span.samples) / 50)[None], span)
    assert set(made.unique().tolist()) <= {k * 0.5 for k in range(-4, 5)}
    assert float(made.max()) == 2.0


@pytest.mark.parametrize("rate_hz", [1000, 2000, 8000, 22050, 51200, 100_000])
def test_signals_of_every_rate_are_finite_and_about_their_level(rate_hz: int) -> None:
    drawn = machine.draw(_draws(), 24, rate_hz=rate_hz, shares=SHARES)
    made = signals.render(drawn, _span(0.5, rate_hz))
    assert torch.isfinite(made).all()
    rms = made.square().mean(1).sqrt() / drawn.sensor.level
    assert 0.5 < float(rms.median()) < 2
    assert float(rms.min()) > 1e-3
    assert float(drawn.sensor.level.max() / drawn.sensor.level.min()) > 10


def test_the_same_seeds_give_the_same_signals_and_others_give_others() -> None:
    first = signals.render(machine.draw(_draws(0), 8, rate_hz=RATE, shares=SHARES), _span(0.3))
    again = signals.render(machine.draw(_draws(0), 8, rate_hz=RATE, shares=SHARES), _span(0.3))
    assert torch.equal(first, again)
    other = signals.render(machine.draw(_draws(0), 8, rate_hz=RATE, shares=SHARES), _span(0.3, seed=1))
    assert not torch.allclose(first, other)


def test_a_machine_that_is_picked_twice_is_the_same_machine() -> None:
    drawn = machine.draw(_draws(), 4, rate_hz=RATE, shares={"current": 1.0})
    twice = rows.pick(drawn, torch.tensor([2, 2]))
    assert torch.equal(twice.electrical.supply_hz, drawn.electrical.supply_hz[[2, 2]])
    made = signals.render(rows.pick(drawn, torch.tensor([2, 2])), _span(1.0))
    spectra = torch.fft.rfft(made).abs()
    assert float(torch.corrcoef(torch.log(spectra[:, 20:2000] + 1e-6))[0, 1]) > 0.7


def test_seeds_of_one_run_never_meet() -> None:
    found = {
        seeds.of(7, stream, counter=c)
        for stream in ("shape", "machines", "noise", "crops", "masks")
        for c in range(20_000)
    }
    assert len(found) == 100_000
    assert seeds.of(7, "noise", counter=3) != seeds.of(8, "noise", counter=3)
    with pytest.raises(ValueError, match="counter"):
        seeds.of(0, "noise", counter=2**32)
