"""The CPU backend: a bundle's graph in OpenVINO, float32, compiled once for any number of bands and frames."""

import openvino as ov

from fisher_agent.backends.pieces import embed_in_pieces
from fisher_agent.errors import BackendFailed, ConfigError
from fisher_agent.stages import Floats
from fisher_models.bundle import Bundle


class OpenVinoEmbedder:
    """Implements `stages.Embedder`. Call it from one thread; `threads` bounds what one call uses (None: all cores)."""

    name = "openvino"

    def __init__(self, bundle: Bundle, *, precision: str = "auto", threads: int | None = None) -> None:
        if precision not in ("auto", "f32"):
            raise ConfigError(f"model.precision: openvino has no {precision!r} in this version; use 'auto' or 'f32'")
        self.precision = "f32"
        self._bundle = bundle
        # Without the hint the plugin computes in bf16 wherever the CPU has it, outside the tolerance.
        options: dict[str, object] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        core = ov.Core()
        try:
            self.device = f"cpu: {core.get_property('CPU', 'FULL_DEVICE_NAME')}"
            compiled = core.compile_model(core.read_model(bundle.graph_path), "CPU", options)
            self._request: ov.InferRequest | None = compiled.create_infer_request()
        except RuntimeError as error:
            raise BackendFailed(f"OpenVINO does not take {bundle.graph_path}: {error}") from error

    def embed(self, bands: Floats, centres: Floats) -> Floats:
        """(n, t, f), (n,) -> (n, d); raises BackendFailed. FISHER looks at the bands alone."""
        request = self._request
        if request is None:
            raise BackendFailed("openvino: this embedder is closed")

        def run(piece: Floats) -> Floats:
            try:
                request.infer([piece], share_inputs=True)
                out: Floats = request.get_output_tensor(0).data  # read before the next call overwrites it
            except (RuntimeError, ValueError) as error:
                raise BackendFailed(f"OpenVINO failed on bands of shape {piece.shape}: {error}") from error
            return out

        return embed_in_pieces(run, self._bundle, bands=bands, centres=centres)

    def close(self) -> None:
        """Free the compiled graph; calling it again does nothing."""
        self._request = None
