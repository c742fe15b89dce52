"""Whether a bank fits what judges by it: the model, its precision, the window, the machine and its channels. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from fisher_agent.bank import Bank, ChannelBank
from fisher_agent.config import ChannelConfig, MachineConfig, WindowConfig
from fisher_agent.errors import BankMismatch

CROSS_PRECISION_SHARE = 0.1  # of the smallest limit: less than this much noise does not change what is alarmed
PRECISION = "precision "  # how this difference begins


@dataclass(frozen=True, slots=True)
class Setting:
    """What a machine is judged with now.

    `cross_precision_distance` is the measured cosine distance between the same input embedded at the bank's precision
    and at this one; under a tenth of the bank's smallest limit it makes another precision acceptable.
    """

    bundle_digest: str
    precision: str
    window: WindowConfig
    machine: MachineConfig
    judged_by: str
    cross_precision_distance: float | None = None


def check(bank: Bank, now: Setting) -> None:
    """Raise BankMismatch, naming all that differs and what to do, unless the bank was made for exactly this."""
    enrol = _machine_differences(bank, now.machine)
    rebuild: list[str] = []
    if bank.bundle_digest != now.bundle_digest:
        rebuild.append(f"bundle {bank.bundle_name} {bank.bundle_digest[:12]}, now {now.bundle_digest[:12]}")
    if (bank.length_s, bank.hop_s) != (now.window.length_s, now.window.hop_s):
        was = f"window {bank.length_s:g} s every {bank.hop_s:g} s"
        rebuild.append(f"{was}, now {now.window.length_s:g} s every {now.window.hop_s:g} s")
    if bank.judged_by != now.judged_by:
        rebuild.append(f"scores by {bank.judged_by}, now by {now.judged_by} (model.judge_by)")
    if bank.precision != now.precision:
        seen = [c.limit for c in bank.channels if c.n_bands]
        smallest = min(seen, default=float("inf"))
        if seen and (
            now.cross_precision_distance is None or not now.cross_precision_distance < CROSS_PRECISION_SHARE * smallest
        ):
            rebuild.append(f"{PRECISION}{bank.precision}, now {now.precision}")
    if enrol:
        raise BankMismatch(
            f"bank {bank.version} of machine {bank.machine} was made for {'; '.join(enrol + rebuild)}; "
            f"enrol again: `fisher-agent enroll --machine {now.machine.id}`"
        )
    if rebuild:
        raise BankMismatch(
            f"bank {bank.version} of machine {bank.machine} was made for {'; '.join(rebuild)}; "
            "run `fisher-agent banks rebuild`",
            outdated=rebuild,
        )


def _machine_differences(bank: Bank, machine: MachineConfig) -> list[str]:
    different = [] if bank.machine == machine.id else [f"machine {bank.machine}, now {machine.id}"]
    enrolled, configured = {c.channel for c in bank.channels}, {c.id for c in machine.channels}
    if enrolled != configured:
        different.append(f"channels {', '.join(sorted(enrolled))}, now {', '.join(sorted(configured))}")
    for channel in bank.channels:
        if channel.channel in configured:
            now = machine.channel(channel.channel)
            different += [
                f"{channel.channel}: {what} {was!r}, now {is_now!r}"
                for what, was, is_now in _bound(channel, now)
                if was != is_now
            ]
    return different


def _bound(channel: ChannelBank, now: ChannelConfig) -> Sequence[tuple[str, object, object]]:
    return (
        ("rate_hz", channel.rate_hz, now.rate_hz),
        ("scale", channel.scale, now.scale),
        ("unit", channel.unit, now.unit),
        ("capture", "snapshot" if channel.snapshot else "stream", now.capture),
    )
