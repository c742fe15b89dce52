"""What a checkpoint says of itself, in its `cfg` or a config.json, read as something that may be wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fisher_models.errors import CheckpointError

_MAX_WHOLE, _MAX_NUMBER = 2**24, 1e9
_MAX_DEPTH = 4  # of dictionaries within dictionaries: a saved `state_dict()` of the published class nests twice


@dataclass(frozen=True, slots=True)
class Settings:
    """Named values; one that is null, `???` or an unresolved `${...}` (OmegaConf) counts as not said."""

    name: str  # for messages
    values: Mapping[str, Any]

    def get(self, name: str) -> Any:
        """The value, or None where it is not said. Raises CheckpointError for what is no plain value."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, str | int | float):
            raise CheckpointError(f"{self.name}: {name} is a {type(value).__name__}, expected a plain value")
        return None if isinstance(value, str) and (value == "???" or value.startswith("${")) else value

    def whole(self, name: str) -> int | None:
        """A size. Raises CheckpointError for what is none."""
        value = self.get(name)
        if value is not None and (type(value) is not int or not 0 < value <= _MAX_WHOLE):
            raise CheckpointError(f"{self.name}: {name} is {_shown(value)}, expected a positive whole number")
        return value

    def number(self, name: str) -> float | None:
        """A positive, finite number. Raises CheckpointError for what is none."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _MAX_NUMBER:
            raise CheckpointError(f"{self.name}: {name} is {_shown(value)}, expected a positive number")
        return float(value)

    def only(self, **implemented: object) -> None:
        """Raise CheckpointError naming every setting that has another value than the one that is implemented."""
        said = {name: self.get(name) for name in implemented}
        if wrong := [f"{n} = {_shown(v)}" for n, v in said.items() if v is not None and v != implemented[n]]:
            known = ", ".join(
                f"{name} = {implemented[name]!r}" for name in said if said[name] not in (None, implemented[name])
            )
            raise CheckpointError(f"{self.name} asks for {', '.join(wrong)}; this version knows {known} only")

    def agrees(self, name: str, found: int | None) -> None:
        """Raise CheckpointError where a size is said and is not the one found."""
        said = self.whole(name)
        if said is not None and found is not None and said != found:
            raise CheckpointError(f"{self.name} has {name} {said}, its weights {found}; they are of two models")

    def inner(self, *names: str) -> "Settings":
        """A dictionary within, over what is said outside: some writers flatten it."""
        values: Any = self.values
        for name in names:
            values = values.get(name) if isinstance(values, Mapping) else None
        if values is None:
            return self
        return Settings(".".join((self.name, *names)), {**self.values, **_mapping(values, ".".join(names))})


def unwrap(content: Mapping[str, Any], config: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], Settings]:
    """The state dict inside a checkpoint, and what it and a config.json say; the checkpoint itself wins."""
    said = _sizes(config or {})
    for _ in range(_MAX_DEPTH):
        if isinstance(content.get("model"), Mapping):
            if content.get("cfg") is not None:
                said = {**said, **_sizes(_mapping(content["cfg"], "cfg"))}
            content = content["model"]
        elif isinstance(content.get("encoder"), Mapping):
            said = {**said, "model_type": content.get("model_type")}
            content = content["encoder"]
        else:
            break
    if wrong := [key for key in content if not isinstance(key, str)]:
        raise CheckpointError(f"a state dict has names for keys, not {wrong[0]!r}")
    return content, Settings("cfg", said)


def _sizes(config: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in ("cfg", "model"):
        if isinstance(config.get(name), Mapping):
            config = config[name]
    return config


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{name} is a {type(value).__name__}, expected a dictionary")
    return value


def _shown(value: object) -> str:
    return repr(value)[:60]
