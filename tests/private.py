"""Secrets as the agent accepts them."""

from pathlib import Path


def private(path: Path, content: str | bytes) -> Path:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
