"""Say clearly that Python is too old or has no venv, before pip says it unclearly."""

import importlib.util
import sys

if sys.version_info < (3, 11):  # noqa: UP036  (this script is what says so)
    version = sys.version.split()[0]
    sys.exit(f"fisher-agent needs Python 3.11 or newer; {sys.executable} is {version}. Try: make PYTHON=python3.12")
if importlib.util.find_spec("ensurepip") is None:
    sys.exit(f"{sys.executable} cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv")
