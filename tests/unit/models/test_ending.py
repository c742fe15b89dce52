"""A command's process ends with the command's code, whatever threads and libraries are left."""

import subprocess
import sys
from pathlib import Path

import pytest

LIFE = """
import sys, threading
from fisher_models.ending import run

def main():
    threading.Thread(target=threading.Event().wait).start()  # the interpreter's own end would wait for it
    {act}

run(main)
"""


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"], autouse=True)
def buffered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


def ended(act: str, redirect: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {redirect}', sys.executable, LIFE.format(act=act)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("code", [0, 3])
def test_it_ends_with_the_code_and_all_that_was_printed(code: int) -> None:
    done = ended(f"print('said'); return {code}")
    assert (done.returncode, done.stdout, done.stderr) == (code, "said\n", "")


def test_a_defect_shows_itself_and_ends_it() -> None:
    done = ended("raise ZeroDivisionError('a defect')")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback") and done.stderr.endswith("ZeroDivisionError: a defect\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_a_full_disk_does_not_take_is_no_success() -> None:
    done = ended("print('said'); return 0", "> /dev/full")
    assert (done.returncode, done.stderr) == (1, "the output is not complete: no space left on device\n")


def test_a_reader_that_has_gone_is_no_success_and_no_complaint() -> None:
    done = ended("import time; time.sleep(0.5); print('said'); return 0", "| true")
    assert done.stderr == ""


def test_it_ends_where_nothing_can_be_printed() -> None:
    assert ended("print('said'); return 0", ">&-").returncode == 0
