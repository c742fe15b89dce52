"""Writes down TensorRT's Python interface as its own bindings state it: tests/contract/tensorrt_api.json.

    python tools/tensorrt_api.py WHEEL... --out tests/contract/tensorrt_api.json

A WHEEL is `tensorrt_cu12_bindings-10.3.0-*.whl`, `tensorrt_cu13_bindings-11.*.whl` or the like (1 MB, for this Python),
from `pip download --no-deps`. The bindings alone cannot be imported: they want libraries of gigabytes. But they take
only a dozen C functions from them, so empty libraries made here by the C compiler will do to read their docstrings.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

CLASSES = (
    "Builder", "IBuilderConfig", "INetworkDefinition", "ITensor", "IOptimizationProfile", "ITimingCache", "IHostMemory",
    "OnnxParser", "ParserError", "Runtime", "ICudaEngine", "IExecutionContext", "ILogger", "Logger", "TensorIOMode",
    "NetworkDefinitionCreationFlag", "BuilderFlag", "MemoryPoolType", "ExecutionContextAllocationStrategy",
)  # fmt: skip
LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")


def interface(module: ModuleType) -> dict[str, dict[str, list[str]]]:
    """class -> attribute -> its signatures, an enumeration's number, or nothing for a property."""
    found: dict[str, dict[str, list[str]]] = {}
    for name in CLASSES:
        cls = getattr(module, name, None)
        if cls is not None:
            found[name] = {
                member: _signatures(getattr(cls, member))
                for member in sorted(dir(cls))
                if member == "__init__" or not member.startswith("_")
            }
    return found


def _signatures(member: Any) -> list[str]:
    if type(member).__name__ in ("property", "type", "pybind11_type"):
        return []
    if hasattr(member, "__members__") or not callable(member):
        return [f"= {int(member)}"] if hasattr(member, "__int__") else []
    lines = [line.strip() for line in (member.__doc__ or "").splitlines()]
    kept = [re.sub(r"^\d+\. ", "", line) for line in lines if re.match(r"(\d+\. )?\w+\((?!\*args)", line)]
    return [re.sub(r"\w+\.tensorrt(_lean)?\.", "", line) for line in kept]


def _stub_libraries(bindings: Path, folder: Path) -> None:
    """Empty libraries under the names that the bindings ask for, with the functions that they take from them."""
    symbols = subprocess.run(["nm", "-D", "--undefined-only", bindings], capture_output=True, text=True, check=True)
    wanted = re.findall(r"U ((?:create|get|init)(?:Infer|NvOnnx|Builder|Plugin|LibNv)\w*)", symbols.stdout)
    dynamic = subprocess.run(["readelf", "-d", bindings], capture_output=True, text=True, check=True)
    sonames = [n for n in re.findall(r"\[(lib\S+\.so\.\d+)\]", dynamic.stdout) if n[3:].split(".")[0] in LIBRARIES]
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in wanted))
    for soname in sonames:
        out = folder / soname
        subprocess.run(["cc", "-shared", "-fPIC", source, "-o", out, f"-Wl,-soname,{soname}"], check=True)


def _read(wheel: Path) -> tuple[str, dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        bindings = next(folder.glob("tensorrt_bindings/tensorrt*.so"))
        _stub_libraries(bindings, folder)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, "--print", folder],
            env={**os.environ, "LD_LIBRARY_PATH": name}, capture_output=True, text=True, check=True,
        )  # fmt: skip
    document = json.loads(done.stdout)
    source = {"file": wheel.name, "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest()}
    return document["version"], {"source": source, "classes": document["classes"]}


def main() -> None:
    """Read the wheels, write the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", nargs="*", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--print", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.print:
        sys.path.insert(0, str(given.print))
        import tensorrt_bindings

        print(json.dumps({"version": tensorrt_bindings.__version__, "classes": interface(tensorrt_bindings)}))
    else:
        given.out.write_text(json.dumps(dict(_read(wheel) for wheel in given.wheels), indent=1) + "\n")


if __name__ == "__main__":
    main()
