"""The sinks, found in a literal dict of lazy import paths in `app`."""
