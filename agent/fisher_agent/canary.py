"""Finds out whether the database keeps what it accepts: once an hour a point is written and read back.

A database that answers 204 and stores nothing looks well to every writer. Where queries are allowed, two points in a
row that a query does not show make the agent `degraded`; where none is, the status says that it could not be told.
Points go to the database directly, beside the outbox: `fisher_check` is of no machine and nobody misses one.
"""

import asyncio
from datetime import UTC, datetime

import structlog

from fisher_agent.config import InfluxConfig
from fisher_agent.delivery import clock_unset
from fisher_agent.errors import FisherError
from fisher_agent.roundtrip import VISIBLE_S, write_and_read
from fisher_agent.runtime import Agent

LINK = "influx"
FIRST_S = 60.0
AGAIN_S = 60.0  # while something is wrong
SURE = 2  # points in a row: one may only have been slow to show
log = structlog.get_logger()


async def watch_database(agent: Agent) -> None:
    """Put the database to the proof now and then; runs until it is cancelled."""
    config = agent.config.influx
    if config is None or not config.prove_every_s:
        return
    canary = _Canary(agent, config)
    await asyncio.sleep(min(FIRST_S, config.prove_every_s))
    while True:
        if agent.links.up.get(LINK) and not clock_unset():
            try:
                await canary.fly()
            except Exception:  # whatever a database answers, nothing needs this to judge
                log.exception("database_proof_failed")
        await asyncio.sleep(min(AGAIN_S, config.prove_every_s) if canary.missed else config.prove_every_s)


class _Canary:
    def __init__(self, agent: Agent, config: InfluxConfig) -> None:
        self.missed = 0  # points in a row that were accepted and not shown
        self._agent, self._config = agent, config
        self._seen = ""  # when a point was last read back
        self._said = ""

    async def fly(self) -> None:
        """Write a point and look for it; what comes of it stands in `Agent.links`."""
        now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z"
        try:
            _, seen = await write_and_read(self._config, self._agent.names)
        except FisherError:
            return  # the outbox meets the same, and waits
        if seen.failures:
            return  # nothing was learnt: neither good nor bad
        if seen.by:
            self.missed, self._seen = 0, now
            self._tell(f"the point of {now} was read back by {seen.by}", "shown")
        elif seen.refusals:
            self.missed = 0
            why = "a point cannot be read back, so a database that loses what it accepts would not be noticed: "
            self._tell(why + seen.refusals, "hidden")
        else:
            self.missed += 1
            if self.missed >= SURE:
                since = f"since {self._seen}" if self._seen else "since the start of the agent"
                doubt = (
                    f"{self._config.url} accepts points and does not show them within {VISIBLE_S:g} s: what was written"
                    f" {since} may be lost; look at the disk, the retention and the log of the database, and at what "
                    "stands before it"
                )
                self._tell("", "lost", doubt=doubt)

    def _tell(self, proof: str, kind: str, *, doubt: str = "") -> None:
        if kind != self._said:
            (log.error if doubt else log.info)("database_proof", text=doubt or proof)
        self._said = kind
        self._agent.links.proven(LINK, proof, doubt=doubt)
