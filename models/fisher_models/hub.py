"""Fetches a model's files from the Hugging Face hub: weights and config.json, never code. Needs huggingface_hub."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from fisher_models.errors import CheckpointError

SCHEME = "hf:"
_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._/-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# In this order: whatever the first group finds, the second is not asked for.
_FILES = (
    ("model.safetensors", "model-?????-of-?????.safetensors", "model.safetensors.index.json", "config.json"),
    ("pytorch_model.bin", "*.pt", "*.pth", "config.json"),
)
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")


@dataclass(frozen=True, slots=True)
class Repository:
    """A model on the hub, at a branch, a tag or a commit."""

    name: str  # OWNER/NAME
    revision: str | None

    @property
    def url(self) -> str:
        """Where a person finds its files."""
        return f"https://huggingface.co/{self.name}/tree/{self.revision or 'main'}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Its files on this machine."""

    folder: Path
    commit: str  # what the branch or tag pointed at


def parse(source: str, *, revision: str | None = None) -> Repository:
    """`hf:OWNER/NAME[@REVISION]`; a revision may be given apart. Raises CheckpointError."""
    name, _, within = source.removeprefix(SCHEME).partition("@")
    if not _NAME.fullmatch(name):
        raise CheckpointError(f"{source!r}: a model on the hub is named hf:OWNER/NAME, with @REVISION to pin it")
    if "@" in source and revision not in (None, within):
        raise CheckpointError(f"{source!r} and --revision {revision} name two revisions; give one of them")
    pinned = within if "@" in source else revision
    if pinned is not None and not _REVISION.fullmatch(pinned):
        raise CheckpointError(f"{pinned!r} is no revision; give a branch, a tag or a commit")
    return Repository(name, pinned)


def fetch(repository: Repository) -> Snapshot:
    """Download what is not yet in the hub's cache; with the network away, the cache alone will do.

    Raises CheckpointError, which tells the manual way, and ModuleNotFoundError without huggingface_hub.
    """
    from huggingface_hub import logging, snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import disable_progress_bars

    logging.set_verbosity_error()  # what it warns of is raised here
    if not sys.stderr.isatty():
        disable_progress_bars()
    for patterns in _FILES:
        try:
            folder = Path(
                snapshot_download(repository.name, revision=repository.revision, allow_patterns=list(patterns))
            )
        except RevisionNotFoundError as error:
            raise CheckpointError(f"{repository.name} has no revision {repository.revision!r}") from error
        except RepositoryNotFoundError as error:
            raise CheckpointError(
                f"the hub has no model {repository.name}, or shows it only to those who log in (set HF_TOKEN)"
            ) from error
        except LocalEntryNotFoundError as error:
            raise CheckpointError(f"the hub cannot be reached; {_manual_way(repository)}") from error
        except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise CheckpointError(f"the download failed: {reason}; {_manual_way(repository)}") from error
        if any(path.is_file() for pattern in _WEIGHTS for path in folder.glob(pattern)):
            commit = folder.name if _COMMIT.fullmatch(folder.name) else repository.revision or "main"
            return Snapshot(folder, commit)
    raise CheckpointError(f"{repository.url} holds no weights: no safetensors, .bin, .pt or .pth at its top")


def _manual_way(repository: Repository) -> str:
    return (
        f"on a machine that reaches it, download model.safetensors (or the .pt or .pth) and config.json from "
        f"{repository.url} into one folder, copy it here, and run: fisher-models import FOLDER --out BUNDLE"
    )
