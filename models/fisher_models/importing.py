"""A published checkpoint, from wherever it lies, to a bundle that says where it came from."""

from dataclasses import dataclass
from pathlib import Path

from fisher_models import checkpoints, hub
from fisher_models.bundle import Bundle
from fisher_models.checkpoints import Checkpoint
from fisher_models.errors import CheckpointError
from fisher_models.export import export
from fisher_models.upstream import convert


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """The bundle, and what was left out of the checkpoint or assumed about it."""

    bundle: Bundle
    notes: tuple[str, ...]


def import_checkpoint(
    source: str, out: Path, *, preset: str | None = None, revision: str | None = None, standing: str = "published"
) -> Imported:
    """Write the bundle `out` from a file, a folder, or `hf:OWNER/NAME[@REVISION]`.

    Its origin names the source, the commit, and the SHA-256 of each file of weights. Raises CheckpointError and
    BundleError; nothing is written then.
    """
    if source.startswith(hub.SCHEME):
        repository = hub.parse(source, revision=revision)
        snapshot = hub.fetch(repository)
        named, checkpoint = f"{hub.SCHEME}{repository.name}@{snapshot.commit}", checkpoints.read(snapshot.folder)
    elif revision is not None:
        raise CheckpointError(f"--revision pins a model on the hub (hf:OWNER/NAME); {source} is a file or a folder")
    else:
        path = Path(source).expanduser()
        named, checkpoint = path.resolve().name, checkpoints.read(path)
    try:
        upstream = convert(checkpoint.content, checkpoint.config, preset=preset)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    bundle = export(upstream.config, upstream.state, out=out, weights=standing, origin=_origin(named, checkpoint))
    return Imported(bundle, upstream.notes)


def _origin(named: str, checkpoint: Checkpoint) -> str:
    digests = ", ".join(
        f"SHA-256 {digest}" if name == named else f"{name} SHA-256 {digest}"
        for name, digest in checkpoint.digests.items()
    )
    return f"{named}, {digests}"
