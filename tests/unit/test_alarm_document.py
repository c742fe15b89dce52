"""The document that operators read is the table that moves their alarms."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_document_is_generated_from_the_present_tables() -> None:
    spec = importlib.util.spec_from_file_location("alarm_states", ROOT / "tools" / "alarm_states.py")
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    written = (ROOT / "deploy" / "docs" / "alarms.md").read_text()
    assert written == tool.document(), "run: python tools/alarm_states.py > deploy/docs/alarms.md"
