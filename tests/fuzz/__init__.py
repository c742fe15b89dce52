"""Fuzzing of every byte that comes from outside: `make fuzz`; agent/ARCHITECTURE.md says how to add a target."""
