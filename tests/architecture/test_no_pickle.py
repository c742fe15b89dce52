"""Nothing is unpickled: a model, a bank, a recording or a message that is opened must not run code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (ROOT / "agent" / "fisher_agent", ROOT / "models" / "fisher_models")
FORBIDDEN = frozenset(
    {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle"}
)
# The name of the error with which torch.load(weights_only=True) refuses a file.
ALLOWED = {("checkpoints.py", "pickle"): {"UnpicklingError"}}


def offences(path: Path, source: str) -> list[str]:
    """What a module does that could run code out of a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.asname or (path.name, a.name) not in ALLOWED]
        else:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"{path.name}:{node.lineno} imports {n}" for n in names if n.partition(".")[0] in FORBIDDEN]
        if isinstance(node, ast.ImportFrom) and node.module == "torch" and any(a.name == "load" for a in node.names):
            found.append(f"{path.name}:{node.lineno} hides torch.load behind another name")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            allowed = ALLOWED.get((path.name, node.value.id))
            if allowed is not None and node.attr not in allowed:
                found.append(f"{path.name}:{node.lineno} uses {node.value.id}.{node.attr}")
        if isinstance(node, ast.Call):
            found += [f"{path.name}:{node.lineno} {fault}" for fault in call_faults(node)]
    return found


def call_faults(call: ast.Call) -> list[str]:
    """What is wrong with the keywords of one call."""
    name = ast.unparse(call.func)
    given = {k.arg: k.value for k in call.keywords}
    faults = []
    if "allow_pickle" in given and not _is(given["allow_pickle"], value=False):
        faults.append(f"{name} allows pickle")
    if name == "torch.load" and not _is(given.get("weights_only"), value=True):
        faults.append("torch.load without weights_only=True")
    if name in ("__import__", "importlib.import_module") and call.args and isinstance(call.args[0], ast.Constant):
        module = str(call.args[0].value).partition(".")[0]
        faults += [f"imports {module}"] * (module in FORBIDDEN)
    return faults


def _is(node: ast.expr | None, *, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.name)
def test_no_module_can_run_what_it_reads(package: Path) -> None:
    modules = sorted(package.rglob("*.py"))
    assert len(modules) > 40
    assert [fault for path in modules for fault in offences(path, path.read_text())] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "import os, marshal", "from shelve import open", "def f():\n    import pickle as p",
        "from joblib.parallel import x", "np.load(p, allow_pickle=True)", "np.load(p, allow_pickle=yes)",
        "numpy.load(p, mmap_mode='r', allow_pickle=1)", "torch.load(p)", "from torch import load",
        "torch.load(p, weights_only=False)",
        "importlib.import_module('pickle')", "__import__('dill')",
    ],
)  # fmt: skip
def test_the_rule_sees_each_way(source: str) -> None:
    assert offences(Path("module.py"), source)


def test_the_one_exception_is_a_name_and_no_loader() -> None:
    path = Path("checkpoints.py")
    assert not offences(path, "import pickle\ntry: f()\nexcept pickle.UnpicklingError: pass")
    assert offences(path, "import pickle\npickle.loads(b'')")
    assert offences(path, "from pickle import loads")


def test_what_is_fine_is_left_alone() -> None:
    assert not offences(Path("m.py"), "np.load(p, allow_pickle=False)\nnp.load(p)\ntorch.load(p, weights_only=True)")
