"""A real Node-RED with the flow that is shipped, on a free loopback port."""

import json
from pathlib import Path
from typing import Any

import pytest

from servers.process import ServerProcess, find_binary, free_port

ROOT = Path(__file__).parents[2]
FLOW = ROOT / "deploy" / "node-red" / "flow.json"
INSTALLED = ROOT / ".venv" / "node-red" / "node_modules" / "node-red" / "red.js"


class NodeRed(ServerProcess):
    """Runs `deploy/node-red/flow.json` with nothing changed but the broker's port; its page is at `url`/fisher."""

    def __init__(self, folder: Path, *, broker_port: int) -> None:
        if not INSTALLED.is_file():
            pytest.fail(f"{INSTALLED} is missing; run `sh tools/install-test-servers.sh`, which installs it with npm")
        folder.mkdir(parents=True, exist_ok=True)
        flow: list[dict[str, Any]] = json.loads(FLOW.read_text())
        (broker,) = (node for node in flow if node["type"] == "mqtt-broker")
        broker["port"] = str(broker_port)
        (folder / "flow.json").write_text(json.dumps(flow))
        (folder / "settings.js").write_text(
            'module.exports = { uiHost: "127.0.0.1", flowFile: "flow.json", telemetry: { enabled: false } };\n'
        )
        port = free_port()
        command: list[str | Path] = [find_binary("node", package="nodejs"), INSTALLED, "--userDir", folder]
        command += ["--settings", folder / "settings.js", "--port", str(port)]
        super().__init__(command, port=port, log=folder / "node-red.log", ready_s=90.0)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"
