import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from fakes import PRESS, SPEC, VIBRATION, WINDOW, FakeEmbedder, bundle, channel, machine, running
from fisher_agent.bank import Bank
from fisher_agent.bankcheck import Setting, check
from fisher_agent.config import JudgeBy, MachineConfig, WindowConfig
from fisher_agent.enrolment import learn, learn_fault
from fisher_agent.errors import BadFile, BankMismatch
from fisher_models.frontend import Frontend


@pytest.fixture(scope="module")
def bank() -> Bank:
    """Two channels and one labelled fault."""
    common: dict[str, Any] = {
        "machine": PRESS, "window": WINDOW, "bundle": bundle(), "frontend": Frontend(SPEC), "embedder": FakeEmbedder(),
        "version": "v20261121T013000-3f2a", "created_ns": 5,
    }  # fmt: skip
    normal, _ = learn(running(seconds=12), **common)
    return learn_fault(running(seconds=4, tone_hz=1230.37), bank=normal, fault="bearing", **common)[0]


def same(a: object, b: object) -> bool:
    """Deep equality through dataclasses, tuples, mappings and arrays with their dtypes."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


def test_a_bank_survives_its_bytes(bank: Bank) -> None:
    assert same(bank, Bank.from_bytes(bank.to_bytes()))


def test_a_bank_without_faults_survives_its_bytes(bank: Bank) -> None:
    plain = dataclasses.replace(bank, faults=None)
    assert same(plain, Bank.from_bytes(plain.to_bytes()))


def test_a_centre_survives_its_bytes(bank: Bank) -> None:
    first, second = bank.channels
    centred = dataclasses.replace(first, centre=first.vectors.mean(axis=0))
    changed = dataclasses.replace(bank, channels=(centred, second))
    assert same(changed, Bank.from_bytes(changed.to_bytes()))


def test_the_same_bank_always_has_the_same_bytes(bank: Bank) -> None:
    assert bank.to_bytes() == bank.to_bytes() == Bank.from_bytes(bank.to_bytes()).to_bytes()


def test_a_truncated_bank_is_refused_wherever_it_is_cut(bank: Bank) -> None:
    data = bank.to_bytes()
    for size in [0, 7, 8, 100, len(data) // 2, len(data) - 1]:
        with pytest.raises(BadFile, match=r"roll back, or enrol again"):
            Bank.from_bytes(data[:size])


def test_a_flipped_bit_in_the_vectors_is_noticed(bank: Bank) -> None:
    data = bytearray(bank.to_bytes())
    data[-20] ^= 1
    with pytest.raises(BadFile, match=r"checksum|sorted|damaged"):
        Bank.from_bytes(bytes(data))


@pytest.mark.parametrize("data", [b"RIFF" * 50, bytes(64), (5).to_bytes(8, "little") + b"[1,2]", b"\xff" * 64])
def test_foreign_bytes_are_no_bank(data: bytes) -> None:
    with pytest.raises(BadFile, match="bank"):
        Bank.from_bytes(data)


def test_another_safetensors_file_is_no_bank() -> None:
    with pytest.raises(BadFile, match="no bank of fisher-agent"):
        Bank.from_bytes(safetensors.numpy.save({"x": np.zeros(3, np.float32)}))


def test_another_format_is_named() -> None:
    data = safetensors.numpy.save({"x": np.zeros(3, np.float32)}, metadata={"bank": '{"format": "fisher.bank/9"}'})
    with pytest.raises(BadFile, match=r"fisher\.bank/9"):
        Bank.from_bytes(data)


@pytest.mark.parametrize("where", ["", "channels"])
def test_what_a_newer_agent_adds_to_a_bank_is_named_as_such(bank: Bank, where: str) -> None:
    data = bank.to_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    manifest = json.loads(header["__metadata__"]["bank"])
    (manifest[where][0] if where else manifest)["of_tomorrow"] = 1
    later = safetensors.numpy.save({}, metadata={"bank": json.dumps(manifest)})
    with pytest.raises(BadFile, match=r"of_tomorrow, which .* a newer fisher-agent wrote it: install"):
        Bank.from_bytes(later)


def test_a_wrong_manifest_is_named(bank: Bank) -> None:
    header = json.loads(bank.to_bytes()[8 : 8 + int.from_bytes(bank.to_bytes()[:8], "little")])
    manifest = json.loads(header["__metadata__"]["bank"]) | {"limit": -1.0}
    data = safetensors.numpy.save({}, metadata={"bank": json.dumps(manifest)})
    with pytest.raises(BadFile, match="limit"):
        Bank.from_bytes(data)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bank: Bank, value: float) -> None:
    first, second = bank.channels
    vectors = first.vectors.copy()
    vectors[3, 3] = value
    broken = dataclasses.replace(bank, channels=(dataclasses.replace(first, vectors=vectors), second))
    with pytest.raises(BadFile, match=r"channel\.vib\.vectors.*not finite"):
        Bank.from_bytes(broken.to_bytes())


def test_arrays_that_do_not_fit_together_are_refused(bank: Bank) -> None:
    first, second = bank.channels
    broken = dataclasses.replace(bank, channels=(dataclasses.replace(first, end_ns=first.end_ns[1:]), second))
    with pytest.raises(BadFile, match=r"channel\.vib\.end_ns"):
        Bank.from_bytes(broken.to_bytes())


def test_a_version_begins_with_a_letter(bank: Bank) -> None:
    with pytest.raises(ValueError, match="version"):
        dataclasses.replace(bank, version="20261121").to_bytes()


def fits(
    bank: Bank,
    *,
    digest: str = bundle().digest,
    precision: str = "f32",
    window: WindowConfig = WINDOW,
    config: MachineConfig = PRESS,
    cross: float | None = None,
    judged_by: JudgeBy = "indicators",
) -> None:
    check(bank, Setting(digest, precision, window, config, judged_by, cross_precision_distance=cross))


def test_a_bank_fits_what_made_it_and_lateness_does_not_matter(bank: Bank) -> None:
    fits(bank)
    fits(bank, window=WindowConfig(length_s=1.0, hop_s=0.5, lateness_s=7.0))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"digest": "b" + "1" * 64}, "bundle"),
        ({"window": WindowConfig(length_s=2.0, hop_s=0.5)}, "window"),
        ({"window": WindowConfig(length_s=1.0, hop_s=1.0)}, "window"),
        ({"precision": "int8"}, "precision f32, now int8"),
        ({"judged_by": "both"}, r"scores by indicators, now by both \(model.judge_by\)"),
    ],
)
def test_another_model_or_window_asks_for_a_rebuild(bank: Bank, change: dict[str, Any], named: str) -> None:
    with pytest.raises(BankMismatch, match=rf"{named}.*banks rebuild"):
        fits(bank, **change)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rate_hz": 8001.0}, r"vib: rate_hz 8000\.0, now 8001\.0"),
        ({"scale": 2.0}, "vib: scale"),
        ({"unit": "m/s2"}, "vib: unit 'g', now 'm/s2'"),
        ({"capture": "snapshot", "period_s": 60}, "vib: capture"),
    ],
)
def test_another_sensor_asks_for_a_new_enrolment(bank: Bank, changes: dict[str, Any], named: str) -> None:
    changed = channel("vib", **({"rate_hz": 8000, "kind": "vibration", "unit": "g"} | changes))
    with pytest.raises(BankMismatch, match=rf"{named}.*enrol again"):
        fits(bank, config=machine(changed, PRESS.channels[1]))


def test_another_set_of_channels_asks_for_a_new_enrolment(bank: Bank) -> None:
    with pytest.raises(BankMismatch, match=r"channels amp, vib, now vib.*enrol again"):
        fits(bank, config=machine(VIBRATION))


def test_everything_that_differs_is_named_at_once(bank: Bank) -> None:
    with pytest.raises(BankMismatch, match=r"channels.*bundle.*precision"):
        fits(bank, config=machine(VIBRATION), digest="b1", precision="int8")


def test_another_precision_is_accepted_under_a_tenth_of_the_smallest_limit(bank: Bank) -> None:
    smallest = min(c.limit for c in bank.channels)
    fits(bank, precision="bf16", cross=0.099 * smallest)
    with pytest.raises(BankMismatch, match="precision"):
        fits(bank, precision="bf16", cross=0.101 * smallest)
