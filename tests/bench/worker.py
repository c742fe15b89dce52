"""A process of its own for each runtime of the bench: thread pools, allocators and memory do not meet."""

import multiprocessing
import os
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from bench.workloads import Workload
from fisher_agent.errors import BackendFailed, ConfigError
from fisher_models.bundle import load


class Absent(Exception):
    """This machine has not what was asked for; the message says why."""


class Worker:
    """Runs one object of `alternatives` or `contenders` elsewhere. Raises Absent where that cannot be opened."""

    def __init__(self, kind: str, bundle: str, *arguments: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, kind, bundle, arguments), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self.ask("hello")
        except Absent:
            self.close()
            raise

    def ask(self, what: str, *arguments: Any, **options: Any) -> Any:
        """The answer of a method of `_Served`."""
        self._pipe.send((what, arguments, options))
        try:
            failed, answer = self._pipe.recv()
        except EOFError as error:
            raise RuntimeError(f"the process for {what} ended: exit code {self._process.exitcode}") from error
        if failed:
            raise Absent(answer)
        return answer

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def close(self) -> None:
        """End it; calling it again does nothing."""
        self._pipe.close()
        self._process.join(10)
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self.close()


class _Served:
    """What a worker can be asked. The runtimes are imported here, each only in the process that needs it."""

    def __init__(self, kind: str, bundle_name: str, arguments: tuple[str, ...]) -> None:
        bundle = load(bundle_name)
        self._workloads: Mapping[str, Workload] = {}
        self.subject: Any
        if kind == "ours":
            from bench.contenders import Ours
            from fisher_agent.service import keep_heap_small

            keep_heap_small()  # as the agent does
            self.subject = Ours(bundle, *arguments)
        else:
            from bench import alternatives

            alternatives.keep_freed_memory()
            kinds = {
                "torch": alternatives.TorchEager,
                "products": alternatives.TorchProducts,
                "onnxruntime": alternatives.OnnxRuntime,
            }
            self.subject = kinds[kind](bundle)

    def hello(self) -> None:
        """It is open."""

    def take(self, *workloads: Workload) -> None:
        """What `run` runs, by name."""
        self._workloads = {workload.name: workload for workload in workloads}

    def settings(self) -> list[Any]:
        """The ways to run an alternative."""
        return list(self.subject.settings)

    def run(self, workload: str, *setting: Any) -> tuple[float, float]:
        """Seconds of one run, and of the front-end in it (0 where it is not timed)."""
        began_s = time.perf_counter()
        self.subject.run(self._workloads[workload], *setting)
        return time.perf_counter() - began_s, float(getattr(self.subject, "front_end_s", 0.0))

    def embeddings(self, workload: str, *setting: Any) -> list[Any]:
        """One per window."""
        return list(self.subject.run(self._workloads[workload], *setting))

    def call(self, method: str, **options: Any) -> Any:
        """Any other method of the subject."""
        return getattr(self.subject, method)(**options)

    def of(self, method: str, workload: str, *setting: Any) -> Any:
        """A method of the subject about one workload."""
        return getattr(self.subject, method)(self._workloads[workload], *setting)


def _serve(pipe: Connection, kind: str, bundle: str, arguments: tuple[str, ...]) -> None:
    os.dup2(2, 1)  # runtimes and logs write to stdout, which is the report's
    served: _Served | None = None
    while True:
        try:
            what, given, options = pipe.recv()
        except EOFError:
            return
        try:
            served = served or _Served(kind, bundle, arguments)
            pipe.send((False, getattr(served, what)(*given, **options)))
        except (ConfigError, BackendFailed, ModuleNotFoundError) as error:
            pipe.send((True, str(error)))
