"""Every call that the backend makes to TensorRT, pycuda and CUDA exists, in TensorRT 10.3 and in 11.

The backend's source is read, not run (`trt_calls`). What it asks for is held against the interfaces that the bindings
of 10.3.0 and 11.4.0 state themselves (`tensorrt_api.json`, written by tools/tensorrt_api.py), against the lean
runtime's bindings as they are installed here, and the stand-ins of tests/gpufakes are held to the same.
"""

import ast
import importlib.util
import inspect
import json
import platform
import sys
from pathlib import Path
from types import ModuleType

import pytest

from contract.trt_calls import Use, uses, wrong

ROOT = Path(__file__).parents[2]
BACKENDS = ROOT / "agent/fisher_agent/backends"
SESSION, BUILD, DEVICE = (BACKENDS / f"trt_{name}.py" for name in ("session", "build", "device"))
APIS = json.loads((Path(__file__).parent / "tensorrt_api.json").read_text())
OLD, NEW = "10.3.0", "11.4.0.106"
LEAN_EXISTS = sys.platform == "linux" and platform.machine() == "x86_64"

# pycuda: src/wrapper/wrap_cudadrv.cpp of the releases 2024.1 and 2026.1, the same in both
PYCUDA = {
    "init": "DEF_SIMPLE_FUNCTION_WITH_ARGS(init)", "Error": "DECLARE_EXC(Error, NULL)",
    "Device": "class Device(ordinal)", "Context": "class Context; pop is static", "Stream": "class Stream(flags=0)",
    "get_driver_version": "()", "pagelocked_empty": '(shape, dtype, order="C", mem_flags=0)', "mem_alloc": "(bytes)",
    "memcpy_htod_async": "(dest, src, stream=None)", "memcpy_dtoh_async": "(dest, src, stream=None)",
}  # fmt: skip

# CUDA Driver API 12, sections "Stream Management" and "Graph Management": function -> number of parameters
DRIVER = {
    "cuStreamBeginCapture_v2": 2, "cuStreamEndCapture": 2, "cuGraphInstantiateWithFlags": 3, "cuGraphDestroy": 1,
    "cuGraphLaunch": 2, "cuGraphExecDestroy": 1,
}  # fmt: skip


def _classes(version: str) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = APIS[version]["classes"]
    return found


def _uses(*paths: Path) -> list[Use]:
    return [use for path in paths for use in uses(path, _classes(OLD))]


@pytest.fixture(scope="module")
def fake() -> ModuleType:
    path = ROOT / "tests/gpufakes/tensorrt/__init__.py"
    spec = importlib.util.spec_from_file_location("fake_tensorrt", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parents[1]))  # it uses the stand-in for pycuda
        before = set(sys.modules)
        spec.loader.exec_module(module)
        for name in set(sys.modules) - before:
            if name.startswith("pycuda"):
                del sys.modules[name]
    return module


def test_the_reading_of_the_source_finds_what_is_there() -> None:
    found = {(use.cls, use.attribute) for use in _uses(SESSION, BUILD)}
    assert found >= {
        ("Runtime", "__init__"), ("Runtime", "deserialize_cuda_engine"), ("ICudaEngine", "num_io_tensors"),
        ("ICudaEngine", "get_tensor_profile_shape"), ("ICudaEngine", "device_memory_size_v2"),
        ("ICudaEngine", "create_execution_context"), ("IExecutionContext", "set_device_memory"),
        ("IExecutionContext", "set_input_shape"), ("IExecutionContext", "set_tensor_address"),
        ("IExecutionContext", "execute_async_v3"), ("ILogger", "ERROR"), ("TensorIOMode", "INPUT"),
        ("ExecutionContextAllocationStrategy", "USER_MANAGED"), ("Builder", "create_network"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"), ("OnnxParser", "parse_from_file"),
        ("OnnxParser", "get_error"), ("ParserError", "desc"), ("INetworkDefinition", "get_input"), ("ITensor", "name"),
        ("IBuilderConfig", "create_timing_cache"), ("IBuilderConfig", "set_timing_cache"), ("BuilderFlag", "TF32"),
        ("IOptimizationProfile", "set_shape"), ("IBuilderConfig", "add_optimization_profile"),
        ("Builder", "build_serialized_network"), ("ITimingCache", "serialize"), ("MemoryPoolType", "WORKSPACE"),
    }  # fmt: skip


@pytest.mark.parametrize("version", [OLD, NEW])
def test_every_call_is_in_the_interface(version: str) -> None:
    assert [why for use in _uses(SESSION, BUILD) if (why := wrong(use, _classes(version)))] == []


@pytest.mark.skipif(not LEAN_EXISTS, reason="the lean runtime's bindings are made for Linux on x86-64 only")
def test_every_runtime_call_is_in_the_lean_bindings_that_are_installed() -> None:
    lean = importlib.import_module("tensorrt_lean_bindings")
    spec = importlib.util.spec_from_file_location("tensorrt_api", ROOT / "tools/tensorrt_api.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    found = tool.interface(lean)
    assert found["IExecutionContext"]["execute_async_v3"], (
        "signatures are read from docstrings; these bindings have none"
    )
    assert [why for use in _uses(SESSION) if (why := wrong(use, found))] == []
    assert tuple(int(n) for n in lean.__version__.split(".")[:2]) >= (11, 0)


def test_the_document_is_of_the_lean_bindings_too() -> None:
    """What the written document says of 11 is what the installed bindings say, so that it cannot be out of date."""
    if not LEAN_EXISTS:
        pytest.skip("the lean runtime's bindings are made for Linux on x86-64 only")
    lean = importlib.import_module("tensorrt_lean_bindings")
    for cls in ("Runtime", "ICudaEngine", "IExecutionContext", "TensorIOMode"):
        written = {name for name in _classes(NEW)[cls] if not name.startswith("_")}
        assert written <= set(dir(getattr(lean, cls)))


def test_a_call_that_does_not_exist_is_found(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text(
        "import tensorrt as trt\n"
        "def build(logger):\n"
        "    builder = trt.Builder(logger)\n"
        "    config = builder.create_builder_config()\n"
        "    config.set_flag(trt.BuilderFlag.FP16)\n"
        "    config.max_workspace_size = 1\n"
        "    config.set_timing_cache(b'', ignore=True)\n"
        "    return builder.build_engine(network, config)\n"
    )
    problems = {
        version: [wrong(use, _classes(version)) for use in uses(source, _classes(OLD))] for version in (OLD, NEW)
    }
    assert "x.py:5: BuilderFlag has no FP16" in problems[NEW]
    assert "x.py:5: BuilderFlag has no FP16" not in problems[OLD]
    for found in problems.values():
        assert "x.py:6: IBuilderConfig has no max_workspace_size" in found
        assert "x.py:8: Builder has no build_engine" in found
        assert any(why.startswith("x.py:7: 1 arguments and ('ignore',) do not fit") for why in found)


def test_strong_typing_is_asked_for_by_name() -> None:
    """Its bit is 1 in 10.3 and 0 in 11: a number in the source would be wrong in one of them."""
    bits = {v: _classes(v)["NetworkDefinitionCreationFlag"]["STRONGLY_TYPED"] for v in (OLD, NEW)}
    assert bits == {OLD: ["= 1"], NEW: ["= 0"]}
    assert "1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)" in BUILD.read_text()


@pytest.mark.parametrize("version", [OLD, NEW])
def test_the_stand_in_promises_nothing_that_the_real_one_has_not(fake: ModuleType, version: str) -> None:
    api = _classes(version)
    for name in APIS[OLD]["classes"].keys() & vars(fake).keys():
        for member in vars(getattr(fake, name)):
            if member.startswith("_"):
                continue
            assert member in api[name], f"{name}.{member}"
            function = inspect.getattr_static(getattr(fake, name), member)
            if inspect.isfunction(function) and api[name][member]:
                words = list(inspect.signature(function).parameters)[1:]
                assert any(all(f"{w}:" in s for w in words) for s in api[name][member]), f"{name}.{member}{words}"


def test_the_stand_in_has_everything_that_the_backend_asks_for(fake: ModuleType) -> None:
    made = {"ITensor": {"name", "shape"}}  # set by its constructor
    for use in _uses(SESSION, BUILD):
        cls = getattr(fake, use.cls)
        assert hasattr(cls, use.attribute) or use.attribute in made.get(use.cls, ()), use


def test_pycuda_has_what_the_device_asks_for() -> None:
    tree = ast.parse(DEVICE.read_text())
    found = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "cuda"}
    assert found == set(PYCUDA)


def test_the_graphs_call_the_driver_as_it_is_documented() -> None:
    calls = [n for n in ast.walk(ast.parse(DEVICE.read_text())) if isinstance(n, ast.Call)]
    found = {
        n.args[0].value: len(n.args) - 1
        for n in calls
        if isinstance(n.func, ast.Attribute) and n.func.attr == "_call" and isinstance(n.args[0], ast.Constant)
    }
    assert found == DRIVER
