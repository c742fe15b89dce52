"""As much of `tensorrt` as the agent uses: an engine is a line of JSON that names its graph, computed by OpenVINO."""

import ctypes
import json
import os
import threading
from enum import Enum, IntEnum

import numpy as np
from pycuda.driver import fails

from fisher_models.cpu import core

__version__ = os.environ.get("FAKE_TRT_VERSION", "10.3.0")


class ILogger:
    class Severity(Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    INTERNAL_ERROR, ERROR, WARNING = Severity.INTERNAL_ERROR, Severity.ERROR, Severity.WARNING
    INFO, VERBOSE = Severity.INFO, Severity.VERBOSE

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class TensorIOMode(Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1


class MemoryPoolType(Enum):
    WORKSPACE = 0


class BuilderFlag(Enum):
    TF32 = 0


class IHostMemory(bytes):
    pass


class ITensor:
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape = name, shape


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.graph = ""
        self._inputs: list[ITensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        if fails("parse"):
            self._errors.append(ParserError("No importer registered for op: Erf"))
            return False
        self._network.graph = model
        for port in core().read_model(model).inputs:
            shape = tuple(-1 if d.is_dynamic else d.get_length() for d in port.partial_shape)
            self._network._inputs.append(ITensor(port.any_name, shape))
        return True


class ITimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self.data + b"+1")


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, input: str, min: tuple, opt: tuple, max: tuple) -> None:  # noqa: A002 (names of the real one)
        assert all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True)), (min, opt, max)
        self.shapes[input] = [tuple(min), tuple(opt), tuple(max)]


class IBuilderConfig:
    def __init__(self) -> None:
        self._timing = ITimingCache(b"")
        self.profiles: list[IOptimizationProfile] = []

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        pass

    def clear_flag(self, flag: BuilderFlag) -> None:
        pass

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache.data.startswith(b"other box"):
            return False
        self._timing = cache
        return True

    def get_timing_cache(self) -> ITimingCache:
        return self._timing

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        if fails("crash"):
            os.abort()
        if fails("hang"):
            threading.Event().wait()
        if fails("build"):
            self._logger.log(ILogger.ERROR, "could not find any implementation for node ForeignNode")
            return None
        assert network.flags == 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        assert {t.name for t in network._inputs} == config.profiles[0].shapes.keys()
        plan = {"graph": network.graph, "shapes": config.profiles[0].shapes, "tensorrt": __version__}
        if fails("wrong"):
            plan["off"] = 0.5
        return IHostMemory(json.dumps(plan).encode())


class IExecutionContext:
    def __init__(self, engine: "ICudaEngine") -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = 0

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size == self._engine.device_memory_size_v2
        self._scratch = memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine._plan["shapes"][name]
        if not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == 4242 and self._scratch
        if fails("execute"):
            return False
        given = {name: _at(self._addresses[name], shape).copy() for name, shape in self._shapes.items()}
        found = np.array(self._engine._model.infer_new_request(given)[0], np.float32)
        if fails("nan"):
            found[...] = np.nan
        _at(self._addresses["embedding"], found.shape)[...] = found + self._engine._plan.get("off", 0.0)
        return True


class ICudaEngine:
    device_memory_size_v2 = 64

    def __init__(self, plan: dict) -> None:
        self._plan = plan
        self._model = core().compile_model(core().read_model(plan["graph"]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self._ports = {p.any_name: p for p in (*self._model.inputs, *self._model.outputs)}

    @property
    def num_io_tensors(self) -> int:
        return len(self._ports)

    def get_tensor_name(self, index: int) -> str:
        return list(self._ports)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._plan["shapes"] else TensorIOMode.OUTPUT

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert profile_index == 0
        return [tuple(shape) for shape in self._plan["shapes"][name]]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if d.is_dynamic else d.get_length() for d in self._ports[name].partial_shape)

    def create_execution_context(
        self, strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC
    ) -> IExecutionContext:
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return IExecutionContext(self)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        try:
            plan = json.loads(serialized_engine)
            version = plan["tensorrt"]
        except (ValueError, KeyError):
            self._logger.log(ILogger.ERROR, "Serialization assertion magicTagRead == kMAGIC_TAG failed")
            return None
        if version != __version__:
            self._logger.log(ILogger.ERROR, "The engine plan file is not compatible with this version of TensorRT")
            return None
        return ICudaEngine(plan)


def _at(address: int, shape: tuple[int, ...]) -> np.ndarray:
    kind = ctypes.c_float * int(np.prod(shape))
    return np.frombuffer(kind.from_address(address), np.float32).reshape(shape)
