"""Configurations: what is wrong is said with its key, and the installed ones are right."""

from pathlib import Path

import pytest

from fisher_models.errors import TrainingError
from fisher_models.pretrain import config

BASE = '[run]\nout = "runs/x"\nbundle = "x"\nsteps = 10\n[model]\npreset = "fisher-tiny"\n'


@pytest.mark.parametrize("path", sorted(config.INSTALLED.glob("*.toml")), ids=lambda path: path.stem)
def test_every_installed_configuration_is_valid_and_found_by_its_name(path: Path) -> None:
    assert config.load(path.stem) == config.load(path)


def test_defaults_are_filled_in() -> None:
    settings = config.parse(BASE)
    assert settings.mask.ratio == 0.8
    assert settings.model.sizes().embed_dim == 192


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[mask]\nratio = 1.2", r"mask\.ratio: 1\.2 is wrong"),
        ("[mask]\nkind = 'stripes'", r"mask\.kind: 'stripes' is wrong"),
        ("[mask]\nration = 0.5", r"mask\.ration is no key of this version"),
        ("[targets]\nlayers = 13", r"targets\.layers 13 is more than the model's depth 12"),
        ("[decoder]\ngroups = 5\ndim = 20", r"decoder\.groups 5 does not divide"),
        ("[decoder]\ndim = 100", r"decoder: dim 100 is no multiple of groups 16"),
        ("[decoder]\nkernel = 4", r"decoder: kernel 4 must be odd"),
        ("[corpus]\ncrops = 1", r"losses\.contrast compares two crops"),
        ("[corpus]\nmin_frames = 99\nmax_frames = 48", r"corpus: min_frames 99 is above max_frames 48"),
        ("[corpus]\nmax_frames = 1040", r"corpus\.max_frames 1040 is more than the model sees \(1024\)"),
        ("[corpus]\nrates_hz = [16000, 500]", r"corpus\.rates_hz\.1: 500 is wrong"),
        ("[corpus]\nrates_hz = []", r"corpus\.rates_hz"),
        ("[corpus]\nvibration = 0\nsound = 0\ncurrent = 0", "one of vibration, sound, current"),
        ("[corpus.recorded]\nshare = 0.5", r"corpus\.recorded: share and manifests must be given together"),
        ("[losses]\nband = 0\npatch = 0\npixel = 0\ncontrast = 0", "at least one of"),
        ("[optimizer]\nrate = nan", r"optimizer\.rate"),
        ("[teacher]\nend = 1.0", r"teacher\.end: 1\.0 is wrong"),
        ("[surplus]\na = 1", "surplus is no key"),
    ],
)
def test_what_is_wrong_is_said_with_its_key(text: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        config.parse(BASE + text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BASE.replace("steps = 10", "steps = 0"), r"run\.steps: 0 is wrong"),
        (BASE.replace("steps = 10\n", ""), r"run\.steps is missing"),
        (BASE.replace('bundle = "x"', 'bundle = "X y"'), r"run\.bundle"),
        (BASE.replace("fisher-tiny", "fisher-huge"), r"model: preset 'fisher-huge' is none of"),
        (BASE + "embed_dim = 190", "a dimension of 190 cannot be shared by 3 heads"),
        ("steps = ", "is not TOML"),
    ],
)
def test_mistakes_in_the_required_sections(text: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        config.parse(text)


def test_every_mistake_is_said_at_once() -> None:
    with pytest.raises(TrainingError) as caught:
        config.parse(BASE + "[mask]\nratio = 2.0\nblock = 0\n[optimizer]\nclip = -1")
    assert str(caught.value).count("\n") == 2


def test_a_file_that_is_not_there_names_the_installed_configurations(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="toy"):
        config.load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(TrainingError, match="cannot be read"):
        config.load(tmp_path / "bad.toml")
    with pytest.raises(TrainingError, match="cannot be read"):
        config.load(tmp_path)


def test_what_a_run_is_leaves_out_where_it_lives_and_how_often_it_is_looked_at() -> None:
    settings = config.parse(BASE)
    moved = config.parse(BASE.replace("runs/x", "elsewhere") + "[monitor]\nlog_every = 3")
    assert settings.identity() == moved.identity()
    assert settings.identity() != config.parse(BASE + "[mask]\nratio = 0.7").identity()
    assert settings.identity() != config.parse(BASE.replace("steps = 10", "steps = 11")).identity()
