"""What a verdict looks like outside: points for the database, topics and payloads for the HMI (contract 2 and 4). Pure.

Payloads are flat JSON objects whose keys are always present with one type: absent is 0, -1 or "", never null.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fisher_agent.codes import UNKNOWN_FAULT, UNKNOWN_FAULT_CODE, Level, Status
from fisher_agent.config import Config
from fisher_agent.stages import ChannelReading, Message, Point, Scalar, Verdict

STATE_SCHEMA = "fisher.state/1"
MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Names:
    """Where this edge stands in the plant, and the topics that follow from it."""

    site: str
    edge: str
    prefix: str = "fisher/v1"

    @classmethod
    def of(cls, config: Config) -> "Names":
        """From the configuration; the prefix keeps its default where no broker is configured."""
        return cls(config.site, config.edge, config.mqtt.prefix if config.mqtt else "fisher/v1")

    @property
    def base(self) -> str:
        """`B` of the contract."""
        return f"{self.prefix}/{self.site}/{self.edge}"

    def machine(self, machine: str, *rest: str) -> str:
        """A topic under a machine."""
        return "/".join((self.base, machine, *rest))

    def client_id(self, role: str) -> str:
        """`fisher-<site>-<edge>-<role>`."""
        return f"fisher-{self.site}-{self.edge}-{role}"


def as_json(document: Mapping[str, Scalar | Sequence[Scalar]]) -> bytes:
    """Compact UTF-8 JSON; a float that JSON cannot hold becomes -1, for a broken document spoils a whole topic."""
    clean = {k: (round(v, 6) if math.isfinite(v) else -1.0) if isinstance(v, float) else v for k, v in document.items()}
    return json.dumps(clean, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def state_object(verdict: Verdict, *, level: Level, fault_code: int, model: str) -> dict[str, Scalar]:
    """The payload of `B/<machine>/state`."""
    return {
        "schema": STATE_SCHEMA,
        "ts": verdict.t_ns // MS,
        "score": verdict.score if verdict.scored else -1.0,  # 0 would look like a perfect machine
        "p_value": verdict.p_value if verdict.scored else -1.0,
        "level": int(level),
        "level_name": level.name.lower(),
        "mode": verdict.mode or "",
        "fault": verdict.fault or "",
        "fault_code": fault_code,
        "fault_confidence": verdict.fault_confidence,
        "running": int(verdict.running),
        "enrolled": int(verdict.enrolled),
        "bank": verdict.bank,
        "model": model,
        "quality": str(verdict.quality),
        **top_facts(verdict),
    }


def top_facts(verdict: Verdict) -> dict[str, Scalar]:
    """The channel and the frequency band that carry the distance; empty where nothing was scored."""
    top = verdict.top if verdict.scored else None
    peak = top.peak_band if top else None
    return {
        "top_channel": top.channel if top else "",
        "top_share": top.contribution if top else 0.0,
        "top_band_hz_low": peak.hz_low if peak else -1.0,
        "top_band_hz_high": peak.hz_high if peak else -1.0,
    }


def retained(topic: str, payload: bytes | str | float, *, qos: int = 1) -> Message:
    """A retained message; a number or word becomes its text."""
    return Message(topic, payload if isinstance(payload, bytes) else str(payload).encode(), qos=qos, retain=True)


def fault_table(codes: Mapping[str, int]) -> bytes:
    """The payload of `B/<machine>/faults`: fault name -> code."""
    return as_json({"": 0, UNKNOWN_FAULT: UNKNOWN_FAULT_CODE, **codes})


def verdict_points(
    names: Names,
    verdict: Verdict,
    *,
    level: Level,
    fault_code: int,
    latency_ms: float,
    statuses: Mapping[str, Status],
    inputs: Mapping[str, Mapping[str, Scalar]],
) -> list[Point]:
    """Every point that one verdict makes. `inputs` holds rate_hz, gaps, late and clock_offset_ms per channel."""
    where = (("site", names.site), ("edge", names.edge), ("machine", verdict.machine))
    points = [
        Point(
            "fisher_score",
            (*where, ("mode", verdict.mode or "default")),
            (
                *((("score", verdict.score), ("p_value", verdict.p_value)) if verdict.scored else ()),
                ("level", int(level)),
                ("fault_code", fault_code),
                ("fault_confidence", verdict.fault_confidence),
                ("running", int(verdict.running)),
                ("quality_code", verdict.quality.code),
                ("latency_ms", latency_ms),
            ),
            verdict.t_ns,
        )
    ]
    points += [
        Point("fisher_fault", (*where, ("fault", name)), (("confidence", share),), verdict.t_ns)
        for name, share in verdict.faults.items()
    ]
    for reading in verdict.readings:
        at = (*where, ("channel", reading.channel))
        status = statuses.get(reading.channel, Status.OK)
        points.append(
            Point("fisher_channel", at, _channel_fields(reading, status, inputs.get(reading.channel, {})), verdict.t_ns)
        )
        points += [
            Point("fisher_band", (*at, ("band", f"{low:g}-{high:g}")), (("contribution", share),), verdict.t_ns)
            for (low, high), share in zip(reading.band_edges_hz, reading.bands, strict=False)
        ]
    return points


def _channel_fields(
    reading: ChannelReading, status: Status, inputs: Mapping[str, Scalar]
) -> tuple[tuple[str, Scalar], ...]:
    scored: tuple[tuple[str, Scalar], ...] = ()
    if reading.ratio >= 0:
        compared = (("distance", reading.distance), ("deviation", reading.deviation))
        scored = (*((n, v) for n, v in compared if v >= 0), ("contribution", reading.contribution))
    velocity = reading.velocity_rms_mm_s
    return (
        *scored,
        *((("mean", reading.mean),) if reading.mean is not None else ()),
        ("rms", reading.rms),
        ("peak", reading.peak),
        ("crest", reading.crest),
        ("kurtosis", reading.kurtosis),
        *((("velocity_rms_mm_s", velocity),) if velocity is not None else ()),
        ("status_code", status.code),
        *inputs.items(),
    )


def alarm_point(names: Names, alarm: Mapping[str, Scalar]) -> Point:
    """The point of one transition, from the alarm object."""
    return Point(
        "fisher_alarm",
        (
            ("site", names.site),
            ("edge", names.edge),
            ("machine", str(alarm["machine"])),
            ("alarm", str(alarm["alarm"])),
        ),
        tuple((key, int(alarm[key])) for key in ("state_code", "occurrence", "priority", "severity")),
        int(alarm["ts"]) * MS,
    )


def alarm_messages(names: Names, alarm: Mapping[str, Scalar]) -> list[Message]:
    """The alarm object, its state code and the journal entry, in the order in which they must arrive."""
    machine, alarm_id = str(alarm["machine"]), str(alarm["alarm"])
    payload = as_json(alarm)
    return [
        retained(names.machine(machine, "alarm", alarm_id), payload),
        retained(names.machine(machine, "alarm", alarm_id, "state"), int(alarm["state_code"])),
        Message(names.machine(machine, "event"), payload, qos=1, retain=False),
    ]
