"""The `model` object of a manifest to and from a family's frozen dataclass of sizes, checked."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from fisher_models.errors import BundleError

C = TypeVar("C")


def read(kind: type[C], model: Mapping[str, Any], *, family: str) -> C:
    """The sizes as `kind` holds them; BundleError names what is missing, unknown or of the wrong type."""
    known = {f.name: f.type for f in fields(kind)}  # type: ignore[arg-type]
    if wrong := sorted(known.keys() ^ (model.keys() - {"family"})):
        raise BundleError(f"model of family {family!r}: missing or unknown: {', '.join(wrong)}")
    for name, expected in known.items():
        value = model[name]
        fits = isinstance(value, int) or (expected is float and isinstance(value, float))
        if isinstance(value, bool) or not fits:
            raise BundleError(f"model of family {family!r}: {name} is {value!r}, expected {expected.__name__}")  # type: ignore[union-attr]
    return kind(**{name: model[name] for name in known})


def write(sizes: Any, *, family: str) -> dict[str, Any]:
    """The reverse of `read`."""
    return {"family": family, **asdict(sizes)}


def check(sizes: Any, *, dim: int, heads: int, family: str) -> None:
    """BundleError unless every size is positive and the heads share the dimension evenly."""
    if wrong := [f"{name} = {value}" for name, value in asdict(sizes).items() if not 0 < value < float("inf")]:
        raise BundleError(f"model of family {family!r}: must be positive: {', '.join(wrong)}")
    if dim % heads or dim % 4:
        raise BundleError(f"model of family {family!r}: a dimension of {dim} cannot be shared by {heads} heads")
