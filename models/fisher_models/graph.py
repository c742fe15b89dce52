"""A model of any family as an ONNX graph."""

from pathlib import Path

from onnx import ModelProto

from fisher_models import graph_echo, graph_fisher
from fisher_models.families import Config
from fisher_models.fisher import FisherConfig


def build(config: Config, weights: Path) -> ModelProto:
    """The serving graph over a safetensors file that will lie beside it.

    Input `bands` (n, t, band_bins) and, where the family looks at it, `centres` (n,); output `embedding`
    (n, embed_dim); all float32.
    """
    return (
        graph_fisher.build(config, weights) if isinstance(config, FisherConfig) else graph_echo.build(config, weights)
    )
