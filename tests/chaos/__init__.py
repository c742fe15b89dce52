"""Breaks what is around a running agent, and checks after each fault what `deploy/docs/reliability.md` promises."""
