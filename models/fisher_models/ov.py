"""OpenVINO without its telemetry: whoever needs OpenVINO takes it from here.

As it comes, `import openvino` sends an event to Google Analytics, unasked, and leaves a folder `intel` in the account's
home. What sends it is a fork of the process, ended by SIGTERM after 3 s: where a firewall drops packets without a word,
as in most plants, that signal reaches asyncio's event loop through the pipe that the fork has inherited, and the daemon
stops. OpenVINO goes on where the package that does this is not there; so it is not found.
"""

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # its import fails from now on

import openvino as ov  # noqa: E402  # after the line above

__all__ = ["ov"]
