"""A bundle's model card: what it is, what it learnt from, what it reaches. Written beside the bundle's manifest.

fisher-models evaluate recorded --data DATA --out results                 every protocol
python tools/model_card.py --bundle fisher-tiny --results results/results.json --run RUN --device "2 CPU cores"

`--run` is the folder of `fisher-models pretrain`; an untrained bundle has none. A run does not record its device, so
`--device` says it. The section "Reproduced by the tests" is measured anew, on the recordings in this repository;
tests/unit/models/test_model_card.py holds the card to it and to the bundle's digest. `export` replaces a bundle's whole
folder, its card too: write the card last. The same input gives the same bytes.
"""

import argparse
import contextlib
import io
import json
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from card_evidence import Figure, Results, Run, read_results, read_run

from fisher_models import bundle as bundles
from fisher_models import cli
from fisher_models.bundle import Bundle
from fisher_models.errors import ModelError
from fisher_models.evaluate.encoders import INDICATORS

ROOT = Path(__file__).resolve().parent.parent
CARD = "MODEL_CARD.md"
RECORDINGS = "agent/fisher_agent/recordings/mcsa_misalignment/manifest.csv"
TOLERANCE = 0.005  # of a figure that the tests reproduce
_CUT = "--channels current_high_res --window-s 0.5 --hop-s 0.05 --draws 20"  # 330 windows: each weighs under TOLERANCE
CHECKS = {
    "aligned or not: learnt from aligned repetitions 1 to 5, judged on 6 and 7 of all": (
        f"--task anomaly --train split_hint=train --test split_hint=test {_CUT}"
    ),
    "which of five alignments: each fifth of the recordings by the others": (
        f"--task diagnosis --leave-out recording_id --folds 5 {_CUT}"
    ),
}
METRICS = {"auc": "AUC"}
MONITORS = {
    "deviation": "deviation of an embedding's dimensions, mean",
    "rank": "effective rank of the embeddings",
    "r2_level": "level, by a linear probe: R²",
    "r2_tonality": "tonality, by a linear probe: R²",
    "r2_modulation": "modulation, by a linear probe: R²",
    "diagnosis": "condition of generated machines held out, nearest neighbours (chance 0.125)",
    "anomaly": "faults of generated machines held out, AUC (chance 0.5)",
}
_WIDTH = 120
Lines = list[str]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 written; 2 usage, or something given cannot be used."""
    arguments = _parser().parse_args(argv)
    try:
        bundle = bundles.load(arguments.bundle)
        out: Path = arguments.out or bundle.path / CARD
        if not out.parent.is_dir():
            raise ModelError(f"--out: {out.parent} is not a folder")
        if arguments.device and not arguments.run:
            raise ModelError("--device says what a run was made on; it needs --run")
        results = read_results(arguments.results, bundle)
        run = read_run(arguments.run, bundle) if arguments.run else None
        out.write_text(card(bundle, results, run, device=arguments.device), encoding="utf-8")
    except ModelError as error:
        print(f"model_card: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"model_card: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    print(f"{bundle.name} {bundle.digest} ({bundle.weights}) -> {out}")
    return 0


def card(bundle: Bundle, results: Results, run: Run | None, *, device: str = "") -> str:
    """The whole card."""
    sections: Mapping[str, Lines] = {
        "What it is": _what(bundle),
        "Files": _files(bundle),
        "Training": _training(bundle, run, device),
        "Measured": _measured(results),
        "Reproduced by the tests": _reproduced(bundle),
        "Limits": _limits(bundle),
        "Licence": _licence(bundle, run),
    }
    lines = [f"# {bundle.name}", "", f"Digest `{bundle.digest}`.", "Written by `tools/model_card.py`; do not edit."]
    for title, body in sections.items():
        lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True, metavar="B", help="an installed bundle's name, or a folder")
    parser.add_argument("--results", type=Path, required=True, metavar="JSON", help="what evaluate recorded wrote")
    parser.add_argument("--run", type=Path, metavar="DIR", help="the run that the bundle was exported from")
    parser.add_argument("--device", default="", metavar="TEXT", help="what the run was made on, in words")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"default {CARD} beside the bundle's manifest")
    return parser


def _what(bundle: Bundle) -> Lines:
    family = bundle.family.upper()
    said = {
        "untrained": f"The {family} architecture with **untrained** weights: it is random features. They tell signals "
        "of different character apart and are no substitute for trained weights.",
        "trained": f"The {family} architecture with our own recipe. It is not the published {family}: no figure "
        "published for that model holds for this one.",
        "published": f"The {family} architecture with published weights, imported.",
    }
    sizes = ", ".join(f"{key} {value:g}" for key, value in bundle.model.items() if key != "family")
    parameters = sum(value.size for value in bundle.state().values())
    return [
        *_text(said[bundle.weights]),
        "",
        *_text(f"Sizes: {sizes}; {parameters:,} parameters. {bundle.embed_dim} numbers for each sub-band."),
        *_text(f"Origin: {bundle.origin}."),
    ]


def _files(bundle: Bundle) -> Lines:
    files = json.loads((bundle.path / bundles.MANIFEST).read_text(encoding="utf-8"))["files"]
    rows = [[f"`{name}`", f"{one['bytes']:,}", f"`{one['sha256']}`"] for name, one in files.items()]
    lines = ["The digest is the SHA-256 of `manifest.json`, which holds these:", ""]
    lines += _table(["file", "bytes", "SHA-256"], rows, left=(0, 2))
    if "int8" in bundle.lower:
        ranges = "The ranges of `graph.int8.onnx` are of generated signals and of what `export --calibrate` was given."
        lines += ["", ranges]
    return lines


def _training(bundle: Bundle, run: Run | None, device: str) -> Lines:
    if bundle.weights == "untrained":
        return ["None: no data, no steps, no losses. The weights are drawn from a seed (origin, above)."]
    if run is None:
        return ["Not stated here; see the origin above."]
    facts = {**run.facts, "compute": f"{_duration(run.seconds)} of training", "device": device or "not recorded"}
    shown = [*((name, f"{weight:g}") for name, weight in run.losses.items()), ("loss", "")]
    losses = [[name, weight, *_fall(run, name)] for name, weight in shown]
    total = run.courses["loss"]
    monitors = [[what, *_fall(run, key)] for key, what in _monitors(run).items()]
    return [
        *_table(["", ""], list(facts.items()), left=(0, 1)),
        "", "Losses; `loss` is their weighted sum. They have moving targets and do not rank models:", "",
        *_table(["", "weight", f"step {total.first_step}", f"step {total.last_step}"], losses),
        "", "Monitors, on signals that are not trained on, the first and the last time that was looked:", "",
        *_table(["", "first", "last"], monitors),
    ]  # fmt: skip


def _monitors(run: Run) -> dict[str, str]:
    told = {
        key: f"{key.removeprefix('knn_')} Hz, macro accuracy of 5 neighbours" for key in run.courses if "knn_" in key
    }
    return {key: what for key, what in (MONITORS | told).items() if key in run.courses}


def _fall(run: Run, key: str) -> list[str]:
    return [f"{run.courses[key].first:.3g}", f"{run.courses[key].last:.3g}"]


def _measured(results: Results) -> Lines:
    rows = [
        [row.name, METRICS.get(row.metric, row.metric), str(row.units)]
        + [_cell(row.figures[name], results) for name in results.names]
        for row in results.rows
    ]
    heads = [f"**{_shown(name)}**" if name in results.own else _shown(name) for name in results.names]
    marks = "+ or - where it is better or worse than " + _shown(results.reference)
    if results.untrained:
        marks += f", u+ or u- than {results.untrained}"
    told = (
        f"Each cell: the value, the middle 95 % over recordings drawn anew, and {marks}: the paired difference excludes"
        " 0. n: recordings, blocks or runs that are drawn. `fisher_models.evaluate.local` holds the protocols."
    )
    table = _table(["protocol", "metric", "n", *heads], [*rows, *_mean_rows(results)], left=(0, 1))
    return [*table, "", *_text(told)]


def _cell(figure: Figure | None, results: Results) -> str:
    """Value, interval, and marks where it differs from the reference and from the untrained model."""
    if figure is None:
        return "not seen"
    parts = [f"{figure.value:.3f}"]
    if figure.interval:
        parts.append("({:.2f} to {:.2f})".format(*figure.interval))
    for kind, other in (("", results.reference), ("u", results.untrained)):
        if (apart := figure.differences.get(other or "")) and apart.mark:
            parts.append(kind + apart.mark)
    return " ".join(parts)


def _mean_rows(results: Results) -> list[list[str]]:
    if not results.means:
        return []
    means = [results.means[name] for name in results.names]
    rows = [[f"**mean of the {results.seen_by_all} seen by all**", "", "", *(_cell(one, results) for one in means)]]
    for other in filter(None, (results.reference, results.untrained)):
        apart = [one.differences.get(other) for one in means]
        cells = [f"{d.value:+.3f} ({d.low:+.2f} to {d.high:+.2f})" if d else "" for d in apart]
        rows.append([f"its difference to {_shown(other)}", "", "", *cells])
    return rows


def _reproduced(bundle: Bundle) -> Lines:
    found = [_check(bundle, arguments) for arguments in CHECKS.values()]
    rows = [
        [what, METRICS.get(one["metric"], one["metric"]), str(one["windows"])]
        + [f"{value:.3f}" for value in one["figures"].values()]
        for what, one in zip(CHECKS, found, strict=True)
    ]
    block = {"digest": bundle.digest, "manifest": RECORDINGS, "tolerance": TOLERANCE, "checks": found}
    contestants = f"--contestant {INDICATORS} --contestant {bundle.name}"
    told = (
        "Motor current, the recordings inside this repository (Ghent University, predict-idlab; CC BY-SA 4.0). The set "
        f"is small: the figures are here to be reproduced, within {TOLERANCE}, and rank nothing."
    )
    commands = [f"fisher-models evaluate manifest {RECORDINGS} {contestants} {one['arguments']}" for one in found]
    return [
        *_text(told), "",
        *_table(["task", "metric", "windows", INDICATORS, f"**{bundle.name}**"], rows, left=(0, 1)), "",
        "```", *commands, "```", "", "```json", json.dumps(block, indent=1), "```",
    ]  # fmt: skip


def _check(bundle: Bundle, arguments: str) -> dict[str, Any]:
    """One figure of the indicators and of the bundle, by the command that the card prints."""
    known = bundle.name in bundles.installed() and bundles.load(bundle.name).path == bundle.path
    given = bundle.name if known else str(bundle.path)
    verb = ["evaluate", "manifest", str(ROOT / RECORDINGS), "--contestant", INDICATORS, "--contestant", given, "--json"]
    parsed = cli.parser().parse_args([*verb, *arguments.split()])
    act: Callable[[argparse.Namespace], int] = parsed.act
    with contextlib.redirect_stdout(io.StringIO()) as said:
        act(parsed)
    (one,) = json.loads(said.getvalue())["protocols"]
    metric, results = one["headline"], one["results"]
    if results[given] is None:
        raise ModelError(f"{bundle.name} does not see the recordings of {RECORDINGS}")
    named = {INDICATORS: results[INDICATORS], bundle.name: results[given]}
    figures = {name: round(result[metric], 6) for name, result in named.items()}
    return {"arguments": arguments, "metric": metric, "windows": one["windows"], "figures": figures}


def _limits(bundle: Bundle) -> Lines:
    spec = bundle.frontend
    bin_hz = 1000 / spec.win_ms
    band_hz, lost_hz = spec.band_bins * bin_hz, spec.band_bins % spec.patch_bins * bin_hz
    lines = [
        f"Bins are {bin_hz:g} Hz wide: neighbouring lines of a shaft fall into one.",
        f"It sees nothing of channels sampled under {spec.min_rate_hz / 1000:g} kHz.",
    ]
    if spec.remainder == "drop":
        lines.append(
            f"It sees whole bands of {band_hz:g} Hz. What lies above the last whole band is not seen: at 12.8 kHz "
            f"sampling all over {6400 // band_hz * band_hz:g} Hz. A rate under {2 * band_hz:g} Hz is one band, padded."
        )
    if lost_hz:
        lines.append(f"The top {lost_hz:g} Hz of each band fill no patch and are not seen.")
    if spec.trailing == "drop":
        lost_ms = (spec.patch_frames - 1) * spec.hop_ms
        lines.append(f"Up to {lost_ms:g} ms at the end of a window fill no patch and are not seen.")
    if spec.longer == "cut":
        lines.append(f"A window is cut off after {spec.longest_s:.3f} s.")
    if bundle.weights == "untrained":
        lines.append("Scores show that something changed; they are not diagnoses.")
    if bundle.weights == "trained":
        lines.append(f"Published {bundle.family.upper()} weights were not at hand: it was not compared with them.")
    lines.append("The sets above are few rigs; intervals are over their recordings, not over machines.")
    return [part for line in lines for part in _text(f"- {line}", indent="  ")]


def _licence(bundle: Bundle, run: Run | None) -> Lines:
    said = ["MIT, as this repository."]
    if bundle.weights == "published":
        said = ["The weights: as their publisher says; see the origin above."]
    if run is not None and run.recorded:
        said.append("The recordings that it was trained on: as stated under Training.")
    said.append("The recordings that it was measured on have their own licences and are no part of it.")
    return _text(" ".join(said))


def _shown(contestant: str) -> str:
    """Without the folders of a bundle that was given by its path."""
    return "+".join(part.rpartition("/")[2] for part in contestant.split("+"))


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} s"


def _text(text: str, *, indent: str = "") -> Lines:
    return textwrap.wrap(text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> Lines:
    rule = "|".join("---" if i in left else "---:" for i in range(len(heads)))
    return [f"| {' | '.join(heads)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in rows)]


if __name__ == "__main__":
    sys.exit(main())
