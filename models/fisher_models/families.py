"""Every architecture behind one set of functions: sizes, modules, front-ends and untrained weights by family.

The modules take `forward(bands, centres)`, so that nothing above them knows which family it has.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fisher_models import echo, fisher
from fisher_models.bundle import Bundle
from fisher_models.echo import EchoConfig
from fisher_models.errors import BundleError
from fisher_models.fisher import FisherConfig
from fisher_models.frontend import FrontendSpec

Config = FisherConfig | EchoConfig
PRESETS: Mapping[str, Config] = {**fisher.PRESETS, **echo.PRESETS}


def config_from(model: Mapping[str, Any]) -> Config:
    """The sizes that a manifest's `model` object states. Raises BundleError, for an unknown family too."""
    match model.get("family"):
        case fisher.FAMILY:
            return FisherConfig.from_dict(model)
        case echo.FAMILY:
            return EchoConfig.from_dict(model)
        case family:
            raise BundleError(f"family {family!r} is not known to this version (it knows fisher, echo)")


def model_from(bundle: Bundle) -> nn.Module:
    """The reference over a bundle's weights, for evaluation: `forward(bands (n, t, f), centres (n,)) -> (n, d)`.

    Both in the precision of the model but `centres`, which stay float32.
    """
    return model_from_state(config_from(bundle.model), bundle.state())


def model_from_state(config: Config, state: Mapping[str, NDArray[Any]]) -> nn.Module:
    """A model with these weights, as `model_from`. BundleError names keys and shapes that do not fit."""
    return fisher.from_state(config, state) if isinstance(config, FisherConfig) else echo.from_state(config, state)


def frontend_spec(config: Config) -> FrontendSpec:
    """The published front-end of a model of these sizes."""
    return fisher.frontend_spec(config) if isinstance(config, FisherConfig) else echo.frontend_spec(config)


def reachable(config: Config, state: Mapping[str, NDArray[Any]]) -> tuple[Config, dict[str, NDArray[Any]]]:
    """The state that a bundle keeps, and its sizes: without position rows that no input can reach. Exact."""
    return fisher.reachable(config, state) if isinstance(config, FisherConfig) else (config, dict(state))


def seeded_state(config: Config, *, seed: int) -> dict[str, NDArray[np.float32]]:
    """Untrained weights, the same on every machine, rounded to float16."""
    return (
        fisher.seeded_state(config, seed=seed)
        if isinstance(config, FisherConfig)
        else echo.seeded_state(config, seed=seed)
    )
