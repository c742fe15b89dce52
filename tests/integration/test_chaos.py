"""A short life in which several things break; `make chaos` is the long one."""

from pathlib import Path

import pytest

from chaos.story import live

FAULTS = ["killed", "network_cut", "disk_full", "many_at_once", "database_lies", "killed", "killed", "suspended"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_is_promised_holds_after_each_of_several_faults(tmp_path: Path) -> None:
    report = live(tmp_path, seed=1, faults=FAULTS)
    assert sum(report.faults.values()) == len(FAULTS)
    assert report.scores > 50
