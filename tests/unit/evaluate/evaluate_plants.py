"""A small labelled set on disk: two channels, three conditions, two specimens each, as a manifest and wav files."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 2000
HEADER = "file,channel,channel_index,sample_rate_hz,label,scale,recording_id,specimen,load_or_speed,split_hint\n"
TONES_HZ = {"normal": 100.0, "worn": 310.0, "loose": 55.0}


def write_set(
    folder: Path, *, seconds: float = 3.0, noise: float = 0.05, labels: tuple[str, ...] = ("normal", "worn", "loose")
) -> Path:
    """Four recordings of each condition: specimens a and b, at loads 0 and 1; load 1 is the test side."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * RATE)) / RATE
    rows = []
    for label in labels:
        for specimen in "ab":
            for load in "01":
                name = f"{label}_{specimen}{load}"
                tone = np.sin(2 * np.pi * TONES_HZ[label] * t + rng.uniform(0, 6))
                data = np.stack([tone, 0.5 * tone], 1) + noise * rng.standard_normal((len(t), 2))
                soundfile.write(folder / f"{name}.wav", np.round(data * 400).astype(np.int16), RATE, subtype="PCM_16")
                split = "test" if load == "1" else "train"
                rows += [
                    f"{name}.wav,{channel},{i},{RATE},{label},0.0025,rec_{name},{label}_{specimen},{load},{split}\n"
                    for i, channel in enumerate("xy")
                ]
    manifest = folder / "manifest.csv"
    manifest.write_text(HEADER + "".join(rows))
    return manifest
