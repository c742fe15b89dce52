"""fisher-agent: a streaming edge agent that embeds, scores and alarms on SCADA sensor feeds."""

RELEASED_NS = 1_795_219_200 * 1_000_000_000
"""2026-11-21 UTC, in ns: a clock before this was never set."""
