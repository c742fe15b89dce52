"""The same targets under atheris (libFuzzer), which keeps what reaches new code: `pip install 'fisher-agent[fuzz]'`."""

import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from random import Random

from fuzz.campaign import seeded
from fuzz.harness import AS_BYTES, HANG_S, Target

FRESH = 0.1  # of the inputs come from the target's own maker, the others from what libFuzzer keeps


def run(target: Target, *, minutes: float, seed: int) -> int:
    """Until the time is over, or the first finding, which libFuzzer writes into the working folder."""
    try:
        import atheris  # optional: wheels exist for few platforms
    except ImportError:
        print("atheris is not installed: pip install 'fisher-agent[fuzz]', or run without --guided", file=sys.stderr)
        return 2
    number = 0
    with tempfile.TemporaryDirectory() as folder, target.open(Path(folder) / "work") as opened:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for n, sample in enumerate(opened.samples):
            (corpus / f"sample-{n}").write_bytes(sample)

        def one(data: bytes) -> None:
            begun_s = time.process_time()
            with suppress(*target.allowed):
                opened.run(data)
            if time.process_time() - begun_s > HANG_S:
                raise TimeoutError(f"{len(data)} bytes took {time.process_time() - begun_s:.1f} s")

        def mutate(data: bytes, max_size: int, mutation: int) -> bytes:
            nonlocal number
            if Random(mutation).random() >= FRESH:
                return bytes(atheris.Mutate(data, max_size))
            number += 1
            return opened.make(seeded(seed, number))[:max_size]

        limits = [f"-rss_limit_mb={AS_BYTES >> 19}", f"-max_total_time={round(minutes * 60)}", f"-seed={seed}"]
        atheris.instrument_all()
        atheris.Setup([sys.argv[0], str(corpus), *limits], one, custom_mutator=mutate)
        atheris.Fuzz()
    return 0
