"""One target under atheris (libFuzzer), which keeps what reaches new code: `pip install 'fisher-agent[fuzz]'`.

A program of its own (`python -m fuzz.guided TARGET MINUTES SEED`), for our packages must be instrumented as they are
imported; to instrument all that is loaded takes minutes.
"""

import importlib
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import structlog

FRESH = 0.1  # of the inputs come from the target's own maker, the others from what libFuzzer keeps
HANG_S = 1.0
RSS_MB = 2000  # of the whole process, which holds libFuzzer's corpus, too


def main(name: str, minutes: float, seed: int) -> int:
    """Until the time is over, or the first finding, which libFuzzer writes into the working folder."""
    try:
        import atheris  # optional: wheels exist for few platforms
    except ImportError:
        print("atheris is not installed: pip install 'fisher-agent[fuzz]', or run without --guided", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["fisher_agent", "fisher_models"]):
        target = importlib.import_module("fuzz.targets").TARGETS[name]
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[lambda *_: ""])
    number = 0
    with tempfile.TemporaryDirectory() as folder:
        work, corpus = Path(folder) / "work", Path(folder) / "corpus"
        work.mkdir()
        corpus.mkdir()
        with target.open(work) as opened:
            for n, sample in enumerate(opened.samples):
                (corpus / f"sample-{n}").write_bytes(sample)

            def one(data: bytes) -> None:
                begun_s = time.process_time()
                with suppress(*target.allowed):
                    opened.run(data)
                if (took_s := time.process_time() - begun_s) > HANG_S:
                    raise TimeoutError(f"{len(data)} bytes took {took_s:.1f} s")

            def mutate(data: bytes, max_size: int, mutation: int) -> bytes:
                nonlocal number
                if Random(mutation).random() >= FRESH:
                    return bytes(atheris.Mutate(data, max_size))
                number += 1
                return bytes(opened.make(Random(seed << 40 | number))[:max_size])

            limits = [f"-rss_limit_mb={RSS_MB}", f"-max_total_time={round(minutes * 60)}", f"-seed={seed}"]
            atheris.Setup([sys.argv[0], str(corpus), "-max_len=200000", *limits], one, custom_mutator=mutate)
            atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
