"""`fisher-agent demo`: the whole agent on one machine, with a fault that begins while you watch."""
