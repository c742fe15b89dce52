"""The process's one OpenVINO core, never freed."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fisher_models.ov import ov


@cache
def core() -> "ov.Core":
    """The core that every graph of this process is compiled with.

    Once no core and no compiled graph is left, OpenVINO unloads its CPU plugin, and the plugin frees the alternate
    signal stack that it gave to the thread which loaded it. If another thread happens to do the unloading, the first is
    left with a stack that is gone, and its next signal (SIGTERM, say) kills the process (OpenVINO 2026.4). A core that
    stays keeps the plugin loaded.
    """
    from fisher_models.ov import ov

    return ov.Core()
