"""A machine's alarms in a test: made, fed with verdicts, told what to do."""

from typing import Any

from fisher_agent.alarmconfig import AlarmConfig
from fisher_agent.alarms import MachineAlarms
from fisher_agent.codes import Quality, State
from fisher_agent.commands import Command
from fisher_agent.lifecycle import Alarm, Event
from fisher_agent.stages import ChannelReading, Peak, Verdict

S = 10**9
CONFIG = AlarmConfig(on_delay_windows=3, off_delay_windows=2, alarm_ratio=2.0)


def verdict(
    score: float,
    t_s: float = 1000,
    *,
    quality: Quality = Quality.GOOD,
    running: bool = True,
    enrolled: bool = True,
    readings: tuple[ChannelReading, ...] = (),
    **more: Any,
) -> Verdict:
    facts = {"p_value": 0.01, "mode": "default", "fault": None, "fault_confidence": 0.0, **more}
    return Verdict(
        "press-07",
        int(t_s * S),
        score=score,
        running=running,
        enrolled=enrolled,
        quality=quality,
        readings=readings,
        **facts,
    )


def machine(
    alarms: tuple[Alarm, ...] = (), occurrence: int = 0, channels: tuple[str, ...] = ("a", "b")
) -> MachineAlarms:
    return MachineAlarms("press-07", channels, CONFIG, alarms, occurrence)


def feed(alarms: MachineAlarms, *scores: float, **more: Any) -> list[tuple[Event, State]]:
    return [(t.event, t.alarm.state) for s in scores for t in alarms.verdict(verdict(s, **more), fault_code=0)]


def raised() -> MachineAlarms:
    alarms = machine()
    assert feed(alarms, 1.5, 1.5, 1.5) == [(Event.RAISE, State.UNACK)]
    return alarms


def ack(alarms: MachineAlarms, occurrence: int, alarm_id: str = "anomaly"):
    return tell(alarms, "ack", alarm_id, occurrence=occurrence, by="kim", comment="seen")


def tell(alarms: MachineAlarms, verb: str, alarm_id: str = "anomaly", t_ns: int = 2000 * S, **said: Any):
    return alarms.command(Command(verb, "press-07", alarm=alarm_id, **said), t_ns)


def configured(**keys: Any) -> MachineAlarms:
    keys = {"on_delay_windows": 3, "off_delay_windows": 2, **keys}
    return MachineAlarms("press-07", ("a", "b"), AlarmConfig(**keys))


def reading(channel: str = "vib-de", ratio: float = 1.8) -> ChannelReading:
    shape = {"rms": 1.0, "peak": 3.0, "crest": 3.0, "kurtosis": 3.0, "velocity_rms_mm_s": None}
    return ChannelReading(
        channel,
        distance=0.2,
        ratio=ratio,
        contribution=0.9,
        **shape,
        flat=False,
        clipped=False,
        bands=(1.0,),
        band_edges_hz=((0.0, 4000.0),),
        peak_band=Peak(2818, 3548, 9.2),
    )


def shelve(alarms: MachineAlarms, until_s: float, **said: Any):
    return tell(alarms, "shelve", until_ms=int(until_s * 1000), **said)
