"""DCASE Task 2 trees as RMIS and SIREN lay them out: which clip is of which machine, section and domain, and anomalous.

    RMIS    dcase20/{dev_data,eval_data}/MACHINE/{train,test}/*.wav; 2021 has source_test and target_test
    SIREN   dcase2020_t2/{development,evaluation}/MACHINE/..., the same below; additional_train/MACHINE/train

Evaluation clips are named neutrally; a list beside them says what each is: a line with a machine's name, then a line
`test name,reference name[,label]` per clip.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fisher_models.errors import RecordingError

YEARS = range(2020, 2026)
SUBSETS = ("dev", "eval")
_FOLDERS = {"rmis": {"dev": "dev_data", "eval": "eval_data"}, "siren": {"dev": "development", "eval": "evaluation"}}
_TESTS = ("test", "source_test", "target_test")


@dataclass(frozen=True, slots=True)
class DcaseClip:
    """One clip."""

    path: Path
    subset: str  # dev | eval
    machine: str
    section: int  # of 2020 the machine's id
    target: bool  # recorded in the target domain
    anomalous: bool
    train: bool


def read_dcase(root: Path, *, year: int, layout: str, lists: Path | None = None) -> list[DcaseClip]:
    """Every clip below a year's folder, machines and names in order; a subset that is not there is left out.

    `lists` is the folder of the lists of evaluation clips; without it they are looked for in the year's folder and in
    that of its evaluation clips. RecordingError where a name or a list cannot be understood.
    """
    if year not in YEARS:
        raise RecordingError(f"DCASE Task 2 of {year} is not known; {YEARS[0]} to {YEARS[-1]} are")
    clips: list[DcaseClip] = []
    for subset, name in _FOLDERS[layout].items():
        folder = root / name
        if not folder.is_dir():
            continue
        reference = _references(root, folder, year=year, lists=lists) if subset == "eval" else {}
        for machine in sorted(path for path in folder.iterdir() if path.is_dir()):
            clips += _machine(root, machine, subset, year, reference)
    if not clips:
        raise RecordingError(f"{root} holds neither {' nor '.join(_FOLDERS[layout].values())} with clips")
    return clips


def _machine(
    root: Path, folder: Path, subset: str, year: int, reference: Mapping[tuple[str, str], str]
) -> Iterator[DcaseClip]:
    train = folder / "train"
    if not train.is_dir():
        train = root / "additional_train" / folder.name / "train"
    for path in sorted(train.glob("*.wav")):
        yield _clip(path, path.name, subset, folder.name, year, train=True)
    for test in _TESTS:
        for path in sorted((folder / test).glob("*.wav")):
            named = path.name
            if subset == "eval":
                if (folder.name, named) not in reference:
                    raise RecordingError(f"{path} is not in the list of evaluation clips")
                named = reference[folder.name, named]
            yield _clip(path, named, subset, folder.name, year, train=False)


def _clip(path: Path, named: str, subset: str, machine: str, year: int, *, train: bool) -> DcaseClip:
    """From the name, as `anomaly_id_01_...` (2020) or `section_00_source_test_normal_...` (later)."""
    fields = Path(named).stem.split("_")
    try:
        if year == 2020:
            section, target, status = int(fields[2]), False, fields[0]
        else:
            section, target, status = int(fields[1]), fields[2] == "target", fields[4]
    except (IndexError, ValueError) as error:
        raise RecordingError(f"{path}: {named!r} is not named as clips of {year} are") from error
    if status not in ("normal", "anomaly"):
        raise RecordingError(f"{path}: {named!r} says neither normal nor anomaly where clips of {year} do")
    if train and status == "anomaly":
        raise RecordingError(f"{path}: an anomaly among the training clips")
    return DcaseClip(path, subset, machine, section, target, status == "anomaly", train)


def _references(root: Path, folder: Path, *, year: int, lists: Path | None) -> dict[tuple[str, str], str]:
    """(machine, test name) -> reference name."""
    names = (f"eval_data_list_{year}.csv", f"eval_data_list_{year}_converted.csv")
    places = [place / name for place in ([lists] if lists else [root, folder]) for name in names]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise RecordingError(f"none of {', '.join(map(str, places))} is there; evaluation clips need their list")
    references, machine = {}, ""
    with found.open(encoding="utf-8-sig", newline="") as lines:
        for number, row in enumerate(csv.reader(lines), start=1):
            if len(row) == 1:
                machine = row[0]
            elif len(row) in (2, 3) and machine:
                references[machine, row[0]] = row[1]
            elif row:
                raise RecordingError(f"{found}, line {number}: neither a machine nor 'test name,reference name'")
    return references
