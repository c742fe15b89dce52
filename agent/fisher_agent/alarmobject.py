"""An alarm as the outside sees it: the object of the contract, and one sentence for an operator. Pure."""

from fisher_agent.codes import UNKNOWN_FAULT
from fisher_agent.lifecycle import FAULT, FLOOD, SENSOR, STALE, UNKNOWN_MODE, Alarm, Inhibit
from fisher_agent.stages import Scalar

SCHEMA = "fisher.alarm/1"


def alarm_object(alarm: Alarm, *, site: str, edge: str, backend: str, bank: str, model: str) -> dict[str, Scalar]:
    """The alarm object (contract 3). Every key is always there with one type; flags are 0 or 1."""
    return {
        "schema": SCHEMA,
        "id": f"{site}/{edge}/{alarm.machine}/{alarm.alarm}",
        "occurrence": alarm.occurrence,
        "seq": alarm.seq,
        "event": alarm.event,
        "machine": alarm.machine,
        "alarm": alarm.alarm,
        "state": alarm.state.name,
        "state_code": int(alarm.state),
        "active": int(alarm.active),
        "acked": int(alarm.acked),
        "shelved": int(alarm.has(Inhibit.SHELVED)),
        "suppressed": int(alarm.has(Inhibit.SUPPRESSED)),
        "suppressed_by": ",".join(alarm.suppressed_by),
        "out_of_service": int(alarm.out_of_service),
        "latched": int(alarm.base.name == "LATCHED"),
        "priority": alarm.priority,
        "severity": alarm.severity,
        "level": int(alarm.level),
        "score": float(alarm.score),
        "p_value": float(alarm.p_value),
        "fault": alarm.fault,
        "fault_code": alarm.fault_code,
        "fault_confidence": float(alarm.fault_confidence),
        "mode": alarm.mode,
        "quality": str(alarm.quality),
        "backend": backend,
        "bank": bank,
        "model": model,
        "ts": alarm.ts,
        "ts_onset": alarm.ts_onset,
        "ts_raised": alarm.ts_raised,
        "ts_acked": alarm.ts_acked,
        "ts_cleared": alarm.ts_cleared,
        "by": alarm.by,
        "comment": alarm.comment,
        "shelved_until": alarm.shelved_until,
        "top_channel": alarm.top_channel,
        "top_share": float(alarm.top_share),
        "top_band_hz_low": float(alarm.top_band_hz_low),
        "top_band_hz_high": float(alarm.top_band_hz_high),
        "capture": alarm.capture,
        "capture_sha256": alarm.capture_sha256,
        "text": sentence(alarm),
    }


def listed(alarm: Alarm) -> bool:
    """Whether `fisher-agent alarms` shows it: it was raised at some time, or somebody has put it aside."""
    return bool(alarm.occurrence or alarm.silenced)


def alarm_row(alarm: Alarm) -> dict[str, Scalar]:
    """One line of `fisher-agent alarms`."""
    keys = ("machine", "alarm", "state", "occurrence", "active", "acked", "priority", "ts_raised", "by", "comment")
    whole = alarm_object(alarm, site="", edge="", backend="", bank="", model="")
    return {key: whole[key] for key in (*keys, "shelved_until", "suppressed_by", "capture", "text")}


def sentence(alarm: Alarm) -> str:
    """One sentence for an operator."""
    if alarm.alarm.startswith(STALE):
        said = "is silent, no samples arrive" if alarm.active else "is heard again" if alarm.occurrence else "is heard"
        return f"{alarm.machine}: {alarm.alarm.removeprefix(STALE)} {said}"
    if alarm.alarm.startswith(SENSOR):
        said = f"cannot be trusted: {alarm.detail}" if alarm.active else "is in order"
        return f"{alarm.machine}: the sensor {alarm.alarm.removeprefix(SENSOR)} {said}"
    if alarm.alarm == FLOOD:
        return f"{alarm.machine}: " + (f"many alarms at once: {alarm.detail}" if alarm.active else "no flood of alarms")
    if alarm.unknown:
        held = " (it was active)" if alarm.active else ""
        return f"{alarm.machine}: {alarm.alarm} unknown, its input cannot be judged{held}"
    if alarm.alarm == UNKNOWN_MODE:
        said = "runs in a mode that was not enrolled, so it is not judged" if alarm.active else "runs in a known mode"
        return f"{alarm.machine} {said}"
    if not alarm.active:
        score = f", score {alarm.score:.1f} (limit 1.0)" if alarm.score >= 0 else ""
        held = " any more, but it waits for an acknowledgement" if alarm.base.name in ("LATCHED", "RTNUN") else ""
        return f"{alarm.machine}: no {alarm.alarm}{held}{score}"
    what = "anomaly" if not alarm.alarm.startswith(FAULT) else f"looks like {alarm.alarm.removeprefix(FAULT)}"
    text = f"{alarm.machine}: {what}, score {alarm.score:.1f} (limit 1.0)"
    if alarm.top_channel:
        text += f"; mostly {alarm.top_channel}"
        if alarm.top_band_hz_high > 0:
            text += f" at {_band(alarm.top_band_hz_low, alarm.top_band_hz_high)}, {alarm.top_change_db:+.0f} dB"
    if alarm.fault == UNKNOWN_FAULT:
        text += "; fault unknown"
    elif alarm.fault:
        text += f"; fault {alarm.fault} ({alarm.fault_confidence:.0%})"
    return text


def _band(low_hz: float, high_hz: float) -> str:
    if high_hz >= 1000:
        return f"{low_hz / 1000:.1f}-{high_hz / 1000:.1f} kHz"
    return f"{low_hz:.0f}-{high_hz:.0f} Hz"
