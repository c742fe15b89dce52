"""The CPU backend: a bundle's graph in OpenVINO, compiled once for any number of bands and frames."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from fisher_agent.backends.pieces import MAX_FRAMES, Piece, embed_in_pieces
from fisher_agent.errors import BackendFailed, ConfigError
from fisher_agent.stages import Floats
from fisher_models.bundle import Bundle
from fisher_models.cpu import core
from fisher_models.ov import ov

PRECISIONS = ("f32", "bf16", "int8")


class OpenVinoEmbedder:
    """Implements `stages.Embedder`. Call it from one thread.

    `threads` bounds the cores in use (None: all), shared by `streams` pieces of at most `max_frames` frames that are
    computed side by side. `probe.choose` finds what is fastest here.
    """

    name = "openvino"

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: str = "f32",
        threads: int | None = None,
        streams: int = 1,
        max_frames: int = MAX_FRAMES,
    ) -> None:
        options: dict[str, object] = {
            # Without the hint the plugin computes in bf16 wherever the CPU has it, outside the tolerance of f32.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "NUM_STREAMS": streams,
        }
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        path = graph(bundle, precision)
        self.precision = precision
        self._bundle, self._max_frames = bundle, max_frames
        try:
            self.device = f"cpu: {core().get_property('CPU', 'FULL_DEVICE_NAME')}"
            compiled = core().compile_model(core().read_model(path), "CPU", options)
            self._takes_centres = any(port.any_name == "centres" for port in compiled.inputs)
            self._requests: list[ov.InferRequest] = [compiled.create_infer_request() for _ in range(streams)]
        except RuntimeError as error:
            raise BackendFailed(f"OpenVINO does not take {path}: {error}") from error

    def embed(self, bands: Floats, centres: Floats) -> Floats:
        """(n, t, f), (n,) -> (n, d); raises BackendFailed."""
        if not self._requests:
            raise BackendFailed("openvino: this embedder is closed")
        return embed_in_pieces(self._run, self._bundle, bands=bands, centres=centres, max_frames=self._max_frames)

    def close(self) -> None:
        """Free the compiled graph; calling it again does nothing."""
        self._requests = []

    def _run(self, pieces: Sequence[Piece]) -> Iterator[Floats]:
        """Start a piece as soon as a stream is free; give the results in order."""
        ahead = len(self._requests)
        try:
            for i in range(len(pieces) + ahead):
                request = self._requests[i % ahead]
                if i >= ahead and i - ahead < len(pieces):
                    request.wait()
                    yield request.get_output_tensor(0).data  # copied before the request is started again
                if i < len(pieces):
                    bands, centres = pieces[i]
                    given = {"bands": bands, "centres": centres} if self._takes_centres else {"bands": bands}
                    request.start_async(given, share_inputs=True)
        except (RuntimeError, ValueError) as error:
            shape = pieces[0][0].shape
            raise BackendFailed(f"OpenVINO failed on {len(pieces)} pieces such as {shape}: {error}") from error


def precisions(bundle: Bundle) -> list[str]:
    """Those that this CPU and this bundle have, float32 first."""
    found = ["f32"]
    if "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        found.append("bf16")
    if "int8" in bundle.lower:
        found.append("int8")
    return found


def graph(bundle: Bundle, precision: str) -> Path:
    """The file to compile for a precision. ConfigError where this CPU or this bundle does not have it."""
    if precision not in PRECISIONS:
        raise ConfigError(f"model.precision: openvino has no {precision!r}; use auto, {', '.join(PRECISIONS)}")
    if precision == "bf16" and "bf16" not in precisions(bundle):
        raise ConfigError("model.precision: this CPU has no bf16; use 'auto' or 'f32'")
    if precision == "int8":
        if "int8" not in bundle.lower:
            raise ConfigError(
                f"model.precision: {bundle.name} has no int8 graph; use 'auto' or 'f32', or export it again"
            )
        return bundle.lower["int8"]
    return bundle.graph_path
