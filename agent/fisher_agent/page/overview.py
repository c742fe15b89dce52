"""What the page shows of everything at once: a plain snapshot of the running agent, cheap enough for every second."""

import math
import time
from collections.abc import Mapping
from typing import Any

from fisher_agent.alarmobject import alarm_object
from fisher_agent.codes import Level
from fisher_agent.enrolling import Enrolments
from fisher_agent.lifecycle import Alarm
from fisher_agent.live import LiveMachine
from fisher_agent.operators import VERBS
from fisher_agent.runtime import Agent
from fisher_agent.stages import Scalar

MS = 1_000_000
HEALTH_S = 5.0  # how often numbers that change all the time are looked at
OFFERED = ("ack", "shelve", "unshelve")
ALARM_KEYS = (
    "alarm", "occurrence", "seq", "state", "state_code", "active", "acked", "shelved", "suppressed", "out_of_service",
    "latched", "priority", "severity", "score", "fault", "fault_confidence", "ts", "ts_onset", "ts_raised", "ts_acked",
    "ts_cleared", "by", "comment", "shelved_until", "top_channel", "capture", "text",
)  # fmt: skip


class Overview:
    """`snapshot` has sections, each a mapping; `Feed` sends the entries that changed."""

    def __init__(self, agent: Agent, enrolments: Enrolments) -> None:
        self._agent = agent
        self._enrolments = enrolments
        self._health: Mapping[str, Scalar] = {}
        self._health_s = -math.inf

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """agent, health, machines, alarms, enrolling."""
        agent, now_s = self._agent, time.monotonic()
        degraded = agent.degradations()
        if now_s - self._health_s >= HEALTH_S:
            self._health, self._health_s = agent.health(), now_s
        machines = list(agent.machines.values())
        return {
            "agent": {
                "site": agent.names.site,
                "edge": agent.names.edge,
                "status": "degraded" if degraded else "online",
                "degraded": degraded,
                "verbs": [verb for verb in OFFERED if verb in VERBS],
            },
            "health": {k: finite(v) for k, v in self._health.items() if k != "ts"},
            "machines": {m.config.id: self._machine(m, now_s) for m in machines},
            "alarms": {m.config.id: [self.alarm(a) for a in m.alarms.alarms if a.occurrence] for m in machines},
            "enrolling": self._enrolments.shown(),
        }

    def alarm(self, alarm: Alarm) -> dict[str, Any]:
        """What of the alarm object people look at."""
        names, model = self._agent.names, self._agent.engine.model
        whole = alarm_object(
            alarm, site=names.site, edge=names.edge, backend=model.backend, bank="", model=model.digest
        )
        return {key: finite(whole[key]) for key in ALARM_KEYS if key in whole}

    def _machine(self, live: LiveMachine, now_s: float) -> dict[str, Any]:
        verdict, level = live.verdict, live.level(mono_s=now_s)
        judge = self._agent.pipeline.judges.get(live.config.id)
        scored = verdict is not None and verdict.scored
        top = verdict.top if verdict is not None and scored else None
        return {
            "level": int(level),
            "level_name": level.name.lower(),
            "score": finite(verdict.score) if verdict is not None and scored else None,
            "t": verdict.t_ns // MS if verdict is not None else 0,
            "mode": (verdict.mode or "") if verdict is not None else "",
            "running": bool(verdict and verdict.running),
            "enrolled": judge is not None and judge.bank is not None,
            "quality": str(verdict.quality) if verdict is not None else "",
            "note": verdict.note if verdict is not None else "nothing was judged yet",
            "fault": (verdict.fault or "") if verdict is not None else "",
            "fault_confidence": finite(verdict.fault_confidence) if verdict is not None else 0.0,
            "top_channel": top.channel if top else "",
            "top_share": finite(top.contribution) if top else 0.0,
            "stale": (level is Level.UNKNOWN and live.all_stale) or live.unjudged(mono_s=now_s),
            "channels": {channel: str(word) for channel, word in live.statuses.items()},
        }


def finite(value: Scalar) -> Scalar | None:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
