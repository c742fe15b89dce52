"""`fisher-models`: parse, call, map errors to exit codes. No logic.

Exit codes: 0 done; 1 a reference was not reproduced; 2 usage, or something given cannot be used; 130 interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.progress import track

from fisher_models import bundle as bundles
from fisher_models import ending
from fisher_models.embed import embed
from fisher_models.errors import ModelError, RecordingError
from fisher_models.evaluate.cli import add_evaluate
from fisher_models.execute import RUNNERS
from fisher_models.pretrain import command as pretrain
from fisher_models.recordings import Recording, from_files, from_manifest

PRESETS = (  # those of `families`, which needs torch
    "fisher-tiny", "fisher-mini", "fisher-small", "echo-tiny", "echo-small", "echo-base", "echo-large",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = parser().parse_args(argv)
    try:
        code: int = arguments.act(arguments)
    except (ModelError, OSError) as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "onnx", "huggingface_hub"):
            raise
        return _fail(f"this needs {error.name}, which the base install leaves out: pip install 'fisher-agent[torch]'")
    except KeyboardInterrupt:
        return 130
    return code


def entry() -> NoReturn:
    """What the console script runs."""
    ending.run(main)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(
        prog="fisher-models", description="Models for industrial signals, and their bundles."
    )
    verbs = root.add_subparsers(required=True, metavar="COMMAND")

    text = "reproduce stored reference vectors; prints the largest error of each case"
    sub = verbs.add_parser("verify", help=text, description=text)
    sub.add_argument("--golden", type=Path, required=True, metavar="DIR")
    sub.add_argument("--model", metavar="NAME", help="such as echo-small; default: all that the folder holds")
    sub.add_argument("--backend", choices=["all", *RUNNERS], default="all")
    sub.set_defaults(act=_verify)

    text = "embed recordings: a row per window and channel, into an npz file"
    sub = verbs.add_parser("embed", help=text, description=text)
    sub.add_argument("--bundle", required=True, metavar="B", help="an installed bundle's name, or a folder")
    sub.add_argument("--backend", choices=list(RUNNERS), default="openvino")
    sub.add_argument("--window-s", type=float, default=5.0, metavar="S", help="default 5")
    sub.add_argument("--manifest", type=Path, metavar="CSV", help="a row per channel of each file")
    sub.add_argument("files", nargs="*", type=Path, metavar="FILE", help="wav, flac or npz")
    sub.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    sub.set_defaults(act=_embed)

    text = "write a bundle, from seeded untrained weights or from a state dict"
    sub = verbs.add_parser("export", help=text, description=text)
    sub.add_argument("--preset", choices=PRESETS, required=True)
    weights = sub.add_mutually_exclusive_group(required=True)
    weights.add_argument("--seed", type=int, metavar="N", help="untrained weights drawn from this seed")
    weights.add_argument("--weights", type=Path, metavar="FILE", help="a safetensors file with the published keys")
    sub.add_argument("--standing", choices=bundles.STANDINGS, help="of --weights, such as trained")
    sub.add_argument("--origin", metavar="TEXT", help="of --weights: where they are from; default the file's name")
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="its last part is the bundle's name")
    sub.add_argument("--calibrate", type=Path, nargs="*", default=[], metavar="FILE", help="recordings, for int8")
    sub.set_defaults(act=_export)

    text = "write a bundle from a published checkpoint; runs no code of it"
    sub = verbs.add_parser("import", help=text, description=text)
    sub.add_argument("source", metavar="SOURCE", help=".safetensors, .pt, .pth, a folder, or hf:OWNER/NAME[@REVISION]")
    sub.add_argument("--revision", metavar="R", help="of hf:, a branch, tag or commit")
    sub.add_argument("--preset", choices=PRESETS, help="sizes that the checkpoint does not state")
    sub.add_argument("--standing", choices=bundles.STANDINGS, default="published", help="default published")
    sub.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="its last part is the bundle's name")
    sub.set_defaults(act=_import)

    pretrain.add(verbs)
    add_evaluate(verbs)
    return root


def _verify(arguments: argparse.Namespace) -> int:
    from fisher_models.verify import verify  # needs torch

    backends = list(RUNNERS) if arguments.backend == "all" else [arguments.backend]
    checks = []
    for check in verify(arguments.golden, backends, model=arguments.model):
        mark = "ok" if check.passed else "FAILED"
        what = f"{check.model:<13}{check.subject:<10} {check.case:<23}"
        print(f"{what} {check.error:8.1e}  limit {check.limit:.0e}  {mark}", flush=True)
        checks.append(check)
    for model, subject in sorted({(check.model, check.subject) for check in checks}):
        worst = max(check.error for check in checks if (check.model, check.subject) == (model, subject))
        print(f"{model:<13}{subject:<10} worst of all {worst:19.1e}")
    failed = sum(not check.passed for check in checks)
    print(f"{len(checks) - failed} of {len(checks)} reproduced")
    return 1 if failed else 0


def _embed(arguments: argparse.Namespace) -> int:
    if bool(arguments.manifest) == bool(arguments.files):
        raise RecordingError("give either --manifest CSV or FILE..., and not both")
    if not arguments.out.parent.is_dir():  # found out now, not after an hour of embedding
        raise RecordingError(f"--out: {arguments.out.parent} is not a folder")
    bundle = bundles.load(arguments.bundle)
    recordings = list(from_manifest(arguments.manifest) if arguments.manifest else from_files(arguments.files))
    if arguments.manifest:
        recordings = _fast_enough(recordings, bundle.frontend.min_rate_hz)
    run = RUNNERS[arguments.backend](bundle)
    shown = track(
        recordings, "embedding", console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True
    )
    table = embed(shown, bundle.frontend, run, window_s=arguments.window_s)
    table.save(arguments.out)
    print(f"{len(table.file)} windows of {len(recordings)} channels -> {arguments.out}")
    return 0


def _fast_enough(recordings: list[Recording], min_rate_hz: float) -> list[Recording]:
    """A data set may mix rates; what the model cannot see is left out, and said."""
    seen = [r for r in recordings if r.rate_hz >= min_rate_hz]
    if not seen:
        raise RecordingError(
            f"every channel of the manifest is sampled below {min_rate_hz:g} Hz; the model sees nothing"
        )
    if left := len(recordings) - len(seen):
        print(f"fisher-models: left out {left} channels sampled below {min_rate_hz:g} Hz", file=sys.stderr)
    return seen


def _export(arguments: argparse.Namespace) -> int:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from fisher_models.export import export  # needs torch and onnx
    from fisher_models.families import PRESETS as SIZES
    from fisher_models.families import seeded_state

    config = SIZES[arguments.preset]
    if arguments.weights is None:
        state = seeded_state(config, seed=arguments.seed)
        weights, origin = "untrained", f"fisher-models export --preset {arguments.preset} --seed {arguments.seed}"
    else:
        if arguments.standing is None:
            raise RecordingError("--weights needs --standing: say whether these weights are trained or published")
        try:
            state = load_file(arguments.weights)
        except SafetensorError as error:
            raise RecordingError(f"{arguments.weights} is no safetensors file: {error}") from error
        weights, origin = arguments.standing, arguments.origin or arguments.weights.name
    calibrate = list(from_files(arguments.calibrate))
    bundle = export(config, state, out=arguments.out, weights=weights, origin=origin, calibrate=calibrate)
    print(f"{bundle.name} {bundle.digest} ({bundle.weights}) -> {bundle.path}")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from fisher_models.importing import import_checkpoint  # needs torch and onnx

    done = import_checkpoint(
        arguments.source, arguments.out,
        preset=arguments.preset, revision=arguments.revision, standing=arguments.standing,
    )  # fmt: skip
    for note in done.notes:
        print(f"fisher-models: {note}", file=sys.stderr)
    bundle = done.bundle
    print(f"{bundle.name} {bundle.digest} ({bundle.weights}) -> {bundle.path}")
    return 0


def _fail(message: str) -> int:
    print(f"fisher-models: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    entry()
