"""Small trees in the real layouts of RMIS and SIREN: tones in noise, so that a class can be told and a fault heard."""

import zlib
from pathlib import Path

import numpy as np
import soundfile
from scipy.io import savemat

RATE = 4000


def tone(hertz: float, path: Path | str, *, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """(n,) float32, in noise of its own for every path (its last parts, so that it is the same in every run)."""
    t = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(zlib.crc32("/".join(Path(path).parts[-4:]).encode()))
    return (0.2 * np.sin(2 * np.pi * hertz * t) + 0.02 * rng.standard_normal(len(t))).astype(np.float32)


def write_wav(path: Path, hertz: float, *, seconds: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(hertz, path, seconds=seconds), RATE, subtype="PCM_16")


def write_dcase_2020(root: Path, folders: tuple[str, str]) -> None:
    """Two machines, ids 00 (dev) and 01 (eval); normal clips at 400 Hz, anomalies at 900 Hz."""
    dev, evaluation = folders
    lines = []
    for m, machine in enumerate(("fan", "pump")):
        lines.append(machine)
        for i in range(6):
            for folder, section in ((dev, "00"), (evaluation, "01")):
                write_wav(root / folder / machine / "train" / f"normal_id_{section}_{i:08}.wav", 400 + 100 * m)
        for i in range(4):
            for status, hertz in (("normal", 400 + 100 * m), ("anomaly", 900)):
                name = f"{status}_id_00_{i:08}.wav"
                write_wav(root / dev / machine / "test" / name, hertz)
                hidden = f"id_01_{2 * i + (status == 'anomaly'):08}.wav"
                write_wav(root / evaluation / machine / "test" / hidden, hertz)
                lines.append(f"{hidden},{status}_id_01_{i:08}.wav,{int(status == 'anomaly')}")
    (root / "eval_data_list_2020.csv").write_text("\n".join(lines) + "\n")


def write_dcase_later(root: Path, year: int, folders: tuple[str, str]) -> None:
    """One machine, source at 400 Hz, target at 600 Hz, anomalies 500 Hz above; 2021 has a folder per domain."""
    lines = ["gearbox"]
    for folder, section in zip(folders, ("00", "03" if year < 2023 else "00"), strict=True):
        for domain, hertz, n in (("source", 400, 6), ("target", 600, 3)):
            for i in range(n):
                name = f"section_{section}_{domain}_train_normal_{i:04}_a_1.wav"
                write_wav(root / folder / "gearbox" / "train" / name, hertz)
            for i in range(4):
                for status, off in (("normal", 0), ("anomaly", 500)):
                    reference = f"section_{section}_{domain}_test_{status}_{i:04}_a_1.wav"
                    place = f"{domain}_test" if year == 2021 else "test"
                    name = reference
                    if folder == folders[1]:
                        name = f"section_{section}_{domain[0]}{status[0]}{i:04}.wav"
                        lines.append(f"{name},{reference}")
                    write_wav(root / folder / "gearbox" / place / name, hertz + off)
    (root / folders[1]).mkdir(exist_ok=True)
    (root / f"eval_data_list_{year}.csv").write_text("\n".join(lines) + "\n")


def write_flat(root: Path, names: dict[str, float], *, suffix: str = ".wav", seconds: float = 1.0) -> None:
    """Files of these names, each a tone."""
    root.mkdir(parents=True, exist_ok=True)
    for name, hertz in names.items():
        soundfile.write(root / f"{name}{suffix}", tone(hertz, root / name, seconds=seconds), RATE, subtype="PCM_16")


def write_cwru(root: Path) -> None:
    """Two .mat files of each of the ten classes, and what SIREN leaves out: healthy and 48 kHz recordings."""
    hertz = iter(range(300, 5300, 500))
    for folder in ("12k_Drive_End_Bearing_Fault_Data", "12k_Fan_End_Bearing_Fault_Data"):
        for place in ("B/007", "IR/007", "OR/007/@3", "OR/007/@6", "OR/007/@12"):
            pitch = next(hertz)
            for load in range(6):
                path = root / folder / place / f"{load}.mat"
                path.parent.mkdir(parents=True, exist_ok=True)
                keys = {f"X{load:03}_DE_time": tone(pitch, path, seconds=0.5, rate=12_000)[:, None]}
                savemat(path, {**keys, f"X{load:03}_FE_time": np.zeros((9, 1)), f"X{load:03}RPM": [[1797]]})
    for left_out in ("Normal/97.mat", "48k_Drive_End_Bearing_Fault_Data/B/007/122.mat"):
        (root / left_out).parent.mkdir(parents=True, exist_ok=True)
        savemat(root / left_out, {"X097_DE_time": np.zeros((9, 1))})


def write_mafaulda(root: Path) -> None:
    """Six csv files of eight channels in each of three folders, at 50 kHz; channel 8 hears another difference."""
    for c, place in enumerate(("normal", "overhang/ball_fault/6g", "imbalance/10g")):
        for i in range(6):
            path = root / place / f"{12 + i}.288.csv"
            channels = [tone(500 + 700 * c, path / str(ch), seconds=0.05, rate=50_000) for ch in range(8)]
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savetxt(path, np.stack(channels, axis=1), delimiter=",", fmt="%.5f")
