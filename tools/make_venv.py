"""Make the virtual environment, or say clearly why not; works with Python and pip alone, as Debian splits them."""

import importlib.util
import subprocess
import sys
import venv
from pathlib import Path


def main(folder: Path) -> None:
    """Make `folder`; where Debian's python3-venv (ensurepip) is missing, the pip that is there installs another one."""
    version = sys.version.split()[0]
    if sys.version_info < (3, 11):  # noqa: UP036  (this script is what says so)
        sys.exit(f"fisher-agent needs Python 3.11 or newer; {sys.executable} is {version}. Try: make PYTHON=python3.12")
    bundled = importlib.util.find_spec("ensurepip") is not None
    if not bundled and importlib.util.find_spec("pip") is None:
        sys.exit(f"{sys.executable} has neither ensurepip nor pip. On Debian and Ubuntu: apt-get install python3-venv")
    venv.create(folder, with_pip=bundled)
    if not bundled:
        python = str(folder / "bin" / "python")
        subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "pip"], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
