"""`fisher-models evaluate`: its arguments. A sub-command per kind of evidence, loaded only when it runs."""

import argparse
from pathlib import Path

from fisher_models.execute import LOWER, RUNNERS

TASKS = ("diagnosis", "anomaly", "run-to-failure", "onset")  # those of `protocol`, which takes a second to load
CONTESTANTS = ("indicators", "fisher-tiny-untrained", "fisher-tiny", "indicators+fisher-tiny")


def add_evaluate(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line of `fisher-models`."""
    text = "measure encoders side by side, by published protocols and on labelled recordings"
    kinds = verbs.add_parser("evaluate", help=text, description=text).add_subparsers(required=True, metavar="KIND")

    text = "the protocols on the recorded sets, with what the indicators are known to reach"
    sub = kinds.add_parser("recorded", help=text, description=text)
    sub.add_argument("--data", type=Path, required=True, metavar="DIR", help="the folder that holds the sets' folders")
    sub.add_argument("--protocol", default="", metavar="A,B,...", help="default all; a wrong name lists them")
    sub.add_argument("--check", action="store_true", help="end with 1 unless every published figure is reproduced")
    _common(sub)
    sub.set_defaults(act=_recorded)

    text = "any labelled set, by its manifest"
    sub = kinds.add_parser("manifest", help=text, description=text)
    sub.add_argument("manifest", type=Path, metavar="CSV")
    sub.add_argument("--task", choices=TASKS, required=True)
    sub.add_argument("--channels", default="", metavar="A,B,...", help="default: all that every file has")
    sub.add_argument("--window-s", type=float, required=True, metavar="S")
    sub.add_argument("--hop-s", type=float, metavar="S", help="default: windows do not overlap")
    sub.add_argument("--rate-hz", type=float, metavar="R", help="resample every channel to one rate")
    sub.add_argument("--target", default="label", metavar="COLUMN", help="default label")
    sub.add_argument(
        "--normal", metavar="A|B", help="values of it that are normal; default normal, healthy, aligned, good"
    )
    sub.add_argument("--where", action="append", default=[], metavar="COLUMN=A|B", help="rows that count; repeatable")
    sub.add_argument("--train", action="append", default=[], metavar="COLUMN=A|B", help="rows to learn from")
    sub.add_argument("--test", action="append", default=[], metavar="COLUMN=A|B", help="rows to judge")
    sub.add_argument("--leave-out", default="", metavar="COLUMN", help="recording_id, or stricter: specimen, ...")
    sub.add_argument(
        "--folds", type=int, default=0, metavar="N", help="of the left-out values; default: each by itself"
    )
    sub.add_argument("--normal-s", type=float, default=0.0, metavar="S", help="onset: so long a run begins normal")
    sub.add_argument(
        "--unit-windows", type=int, default=0, metavar="N", help="draw blocks of N windows, not recordings"
    )
    _common(sub)
    sub.set_defaults(act=_manifest)

    text = "RMIS: anomaly detection on DCASE Task 2 and thirteen fault diagnosis sets, in their prepared layout"
    sub = kinds.add_parser("rmis", help=text, description=text)
    sub.add_argument("--multi-split", action="store_true", help="also the area over test shares of 0.05 to 0.95")
    _benchmark(sub, "code: as released; paper: as described there")
    sub.set_defaults(act=_rmis)

    text = "SIREN: DCASE Task 2, IIEE, IICA, CWRU and MAFAULDA in their published layout"
    sub = kinds.add_parser("siren", help=text, description=text)
    _benchmark(sub, "code: as released; paper: as described, without the quirks of the code")
    sub.set_defaults(act=_siren)


def _common(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--contestant", action="append", metavar="E[:SPACE][+E...][@RULE]",
        help="repeatable; encoders are indicators, indicators-no-envelope, PRESET-untrained[-SEED], bundles; default: "
        + ", ".join(CONTESTANTS),
    )  # fmt: skip
    sub.add_argument("--reference", metavar="NAME", help="what others are compared with; default the first")
    sub.add_argument("--backend", choices=[*RUNNERS, *LOWER], default="openvino", help="of bundles")
    sub.add_argument(
        "--stretch", action="store_true", help="let models see slow channels, resampled to their least rate"
    )
    sub.add_argument("--draws", type=int, default=1000, metavar="N", help="of the bootstrap; default 1000")
    sub.add_argument("--cache", type=Path, metavar="DIR", help="keeps embeddings, so that a second run is fast")
    sub.add_argument("--out", type=Path, metavar="DIR", help="writes table.txt, results.json and a plot per set")
    sub.add_argument("--no-plots", action="store_true")
    sub.add_argument("--json", action="store_true", help="one JSON document on stdout and nothing else")


def _benchmark(sub: argparse.ArgumentParser, follow: str) -> None:
    sub.add_argument(
        "--data", type=Path, metavar="DIR", help="holds a folder per set, named after it; absent ones are left out"
    )
    sub.add_argument(
        "--root", action="append", default=[], metavar="SET=DIR", help="a set's folder; a wrong name lists the sets"
    )
    sub.add_argument(
        "--lists", type=Path, metavar="DIR", help="holds eval_data_list_YEAR.csv; default: the set's folder"
    )
    sub.add_argument(
        "--encoder", action="append", metavar="E", help=f"repeatable; default {', '.join(CONTESTANTS[:3])}"
    )
    sub.add_argument("--backend", choices=[*RUNNERS, *LOWER], default="openvino", help="of bundles")
    sub.add_argument("--rules", choices=["code", "paper"], default="code", help=follow)
    sub.add_argument(
        "--set", action="append", default=[], metavar="RULE=VALUE", help="one rule by itself; a wrong one lists them"
    )
    sub.add_argument("--cache", type=Path, metavar="DIR", help="keeps embeddings, so that a second run is fast")
    sub.add_argument("--json", action="store_true", help="one JSON document on stdout and nothing else")


def _recorded(arguments: argparse.Namespace) -> int:
    from fisher_models.evaluate.commands import recorded

    return recorded(arguments)


def _manifest(arguments: argparse.Namespace) -> int:
    from fisher_models.evaluate.commands import manifest

    return manifest(arguments)


def _rmis(arguments: argparse.Namespace) -> int:
    from fisher_models.evaluate.benchmark_commands import rmis

    return rmis(arguments)


def _siren(arguments: argparse.Namespace) -> int:
    from fisher_models.evaluate.benchmark_commands import siren

    return siren(arguments)
