"""`fisher-agent doctor`: what support needs of a box, without its secrets, and what to do about what it shows."""
