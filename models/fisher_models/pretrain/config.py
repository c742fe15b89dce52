"""A pre-training run's configuration: TOML, frozen, every mistake at once and each with its key.

As in `mask.ratio: 1.2 is wrong: input should be less than 1`.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fisher_models.echo import EchoConfig
from fisher_models.errors import BundleError, TrainingError
from fisher_models.families import PRESETS, Config
from fisher_models.fisher import FisherConfig

INSTALLED = Path(__file__).parent / "configs"

Whole = Annotated[int, Field(ge=0, le=2**31)]
Count = Annotated[int, Field(ge=1, le=2**31)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """Unknown keys are errors and values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RunSpec(Strict):
    """Where a run lives, how long it is, and on what."""

    out: Path  # its folder; a run found there is resumed
    bundle: Annotated[str, Field(pattern=r"^[a-z][a-z0-9._-]{0,63}$")]  # name of the bundle written at the end
    steps: Count
    seed: Whole = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "f32", "bf16"] = "auto"  # auto: bf16 where the device computes in it, else f32
    threads: Whole = 0  # of a CPU; 0: as torch has it
    narrow: bool = True  # round the bundle's weights to float16, which halves it


class ModelSpec(Strict):
    """Which model: a preset, or a preset with other sizes."""

    preset: str
    embed_dim: Count | None = None
    heads: Count | None = None
    depth: Count | None = None
    patch_init_std: Positive = 0.065  # of the patch projection; at 0.02 positions outweigh what the patches hold

    def sizes(self) -> Config:
        """The sizes; BundleError where they do not fit together."""
        base = PRESETS[self.preset]
        said = {name: getattr(self, name) for name in ("embed_dim", "heads", "depth") if getattr(self, name)}
        values = {key: value for key, value in base.to_dict().items() if key != "family"} | said
        return FisherConfig(**values) if isinstance(base, FisherConfig) else EchoConfig(**values)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is none of {', '.join(PRESETS)}")
        try:
            self.sizes()
        except BundleError as error:
            raise ValueError(str(error)) from error
        return self


class RecordedSpec(Strict):
    """Recordings mixed into the corpus, where their licence allows it."""

    manifests: tuple[Path, ...] = ()
    share: Share = 0.0  # of the batches
    licences: tuple[str, ...] = ("CC BY 3.0", "CC BY 4.0", "CC BY-SA", "MIT")  # how a licence that is allowed begins
    splits: tuple[str, ...] = ("train", "pretrain")  # values of split_hint; never what an evaluation tests on

    @model_validator(mode="after")
    def _some(self) -> Self:
        if (self.share > 0) != bool(self.manifests):
            raise ValueError("share and manifests must be given together")
        return self


class CorpusSpec(Strict):
    """What a batch is made of. One rate and one length are drawn for each batch."""

    rates_hz: Annotated[tuple[Annotated[int, Field(ge=1000, le=200_000)], ...], Field(min_length=1)] = (
        1000, 2000, 4000, 8000, 10000, 12000, 12800, 16000, 16000, 20000, 20480, 22050, 25600, 32000, 44100, 48000,
        51200, 64000, 100000,
    )  # fmt: skip
    vibration: NotNegative = 0.5  # shares of the kinds
    sound: NotNegative = 0.3
    current: NotNegative = 0.2
    sub_bands: Annotated[int, Field(ge=2)] = 64  # of each batch and process, before crops and clones
    bands_per_signal: Count = 4  # of a wide-band signal, so many of its bands, at random
    min_frames: Annotated[int, Field(ge=16, le=2000)] = 48
    max_frames: Annotated[int, Field(ge=16, le=2000)] = 320
    crops: Literal[1, 2] = 2
    crop_spread: Annotated[float, Field(ge=0, le=4)] = 0.5  # how much longer than a crop the signal is
    gain_db: NotNegative = 15.0  # each crop's own gain lies evenly within +- this
    random_bands: bool = False  # ECHO: bands start at any bin
    recorded: RecordedSpec = RecordedSpec()

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_frames > self.max_frames:
            raise ValueError(f"min_frames {self.min_frames} is above max_frames {self.max_frames}")
        if self.vibration + self.sound + self.current <= 0:
            raise ValueError("one of vibration, sound, current must be above 0")
        return self


class MaskSpec(Strict):
    """`ratio` of the patches is hidden; blocks are `block` patches wide, `adjust` more of the grid is drawn as such."""

    kind: Literal["inverse-block", "random"] = "inverse-block"
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.8
    block: Annotated[int, Field(ge=1, le=64)] = 5
    adjust: Annotated[float, Field(ge=0, lt=1)] = 0.07
    clones: Count = 8  # masks of each sub-band
    max_cloned: Count = 512  # sub-bands of a batch, clones counted


class TargetSpec(Strict):
    """How targets are normalised: each layer, across the batch, and at the end; see `targets`."""

    layers: Whole = 0  # of the last layers; 0: all
    layer_norm: Literal["instance", "layer", "batch", "none"] = "none"
    centre: Literal["position", "none"] = "position"
    norm: Literal["zscore", "layer", "none"] = "zscore"


class TeacherSpec(Strict):
    """How slowly the teacher follows: linear from `start` to `end` over a share of the run."""

    start: Annotated[float, Field(ge=0, lt=1)] = 0.999
    end: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    share: Share = 0.5


class DecoderSpec(Strict):
    """Sizes; `dim` and the model's dimension must be multiples of `groups`."""

    dim: Count = 192
    layers: Count = 4
    kernel: Annotated[int, Field(ge=1, le=15)] = 3
    groups: Count = 16
    noise: NotNegative = 0.01

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} must be odd")
        if self.dim % self.groups:
            raise ValueError(f"dim {self.dim} is no multiple of groups {self.groups}")
        return self


class LossSpec(Strict):
    """Weights of the losses; 0 leaves one out, and its head too."""

    band: NotNegative = 1.0
    patch: NotNegative = 1.0
    pixel: NotNegative = 0.5
    contrast: NotNegative = 0.3
    statistics: NotNegative = 0.5
    temperature: Positive = 0.1


class OptimizerSpec(Strict):
    """AdamW; the rate warms up, is held (or falls as a cosine), and falls to zero over the last `decay` of the run."""

    rate: Positive = 5e-4
    warmup: Share = 0.05
    schedule: Literal["hold", "cosine"] = "hold"
    decay: Share = 0.25
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    weight_decay: NotNegative = 0.05  # of matrices only
    clip: Positive = 4.0  # of the gradient's norm


class KnnSpec(Strict):
    """Machines held out of training, and recordings, that are told apart by nearest neighbours now and then."""

    machines: Count = 8
    windows: Annotated[int, Field(ge=2)] = 8  # of each machine and condition; half are the bank
    rates_hz: Annotated[tuple[Annotated[int, Field(ge=1000, le=200_000)], ...], Field(min_length=1)] = (
        8000, 25600,
    )  # fmt: skip
    frames: Annotated[int, Field(ge=16)] = 96
    manifests: tuple[Path, ...] = ()
    window_s: Positive = 1.0
    most: Count = 600  # windows of a manifest


class MonitorSpec(Strict):
    """How often, in steps, what is looked at."""

    log_every: Count = 20
    look_every: Count = 200  # collapse monitors and probes
    knn_every: Count = 1000
    save_every: Count = 500
    bands: Annotated[int, Field(ge=32)] = 512  # that the monitors look at
    knn: KnnSpec = KnnSpec()


class Settings(Strict):
    """A whole run."""

    run: RunSpec
    model: ModelSpec
    corpus: CorpusSpec = CorpusSpec()
    mask: MaskSpec = MaskSpec()
    targets: TargetSpec = TargetSpec()
    teacher: TeacherSpec = TeacherSpec()
    decoder: DecoderSpec = DecoderSpec()
    losses: LossSpec = LossSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    monitor: MonitorSpec = MonitorSpec()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        sizes = self.model.sizes()
        if self.losses.contrast and self.corpus.crops != 2:
            raise ValueError("losses.contrast compares two crops; set corpus.crops = 2, or losses.contrast = 0")
        if sizes.embed_dim % self.decoder.groups:
            raise ValueError(
                f"decoder.groups {self.decoder.groups} does not divide the model's dimension {sizes.embed_dim}"
            )
        if self.targets.layers > sizes.depth:
            raise ValueError(f"targets.layers {self.targets.layers} is more than the model's depth {sizes.depth}")
        longest = sizes.max_frames if isinstance(sizes, EchoConfig) else 1024
        if self.corpus.max_frames > longest:
            raise ValueError(f"corpus.max_frames {self.corpus.max_frames} is more than the model sees ({longest})")
        if not (self.losses.band or self.losses.patch or self.losses.pixel or self.losses.contrast):
            raise ValueError("losses: at least one of band, patch, pixel, contrast must be above 0")
        return self

    def identity(self) -> dict[str, Any]:
        """What must not change between sittings of one run, by key; the rest (where, how often looked at) may."""
        values = self.model_dump(
            mode="json", exclude={"monitor": True, "run": {"out", "bundle", "device", "threads", "narrow"}}
        )
        return dict(_flat(values))


def load(name_or_path: str | Path) -> Settings:
    """An installed configuration by its name, or a file. TrainingError names every key that is wrong."""
    path = Path(name_or_path)
    named = INSTALLED / f"{name_or_path}.toml"
    if not path.exists() and "/" not in str(name_or_path) and named.is_file():
        path = named
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        known = ", ".join(sorted(p.stem for p in INSTALLED.glob("*.toml")))
        raise TrainingError(f"{name_or_path} is no file, and no installed configuration ({known})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} cannot be read: {error}") from error
    return parse(text, origin=str(path))


def parse(text: str, *, origin: str = "configuration") -> Settings:
    """TOML text -> Settings; see `load`."""
    try:
        return Settings.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"{origin} is not TOML: {error}") from error
    except ValidationError as error:
        raise TrainingError("\n".join(f"{origin}: {_sentence(dict(e))}" for e in error.errors())) from error


def _sentence(error: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"])
    said = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{key} is no key of this version; check its spelling"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "value_error":
        return f"{key}: {said}" if key else said
    return f"{key}: {error['input']!r} is wrong: {said[0].lower()}{said[1:]}"


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    return [
        pair
        for key, value in values.items()
        for pair in (_flat(value, f"{before}{key}.") if isinstance(value, dict) else [(before + key, value)])
    ]
