"""A TCP gateway between the agent and a server, which can be cut, half open, slow, or answer in the server's stead."""

import asyncio
import contextlib
import re
import threading
from collections.abc import Coroutine
from typing import Any, Literal, Self

from servers.process import free_port

Mode = Literal["pass", "cut", "silent", "slow", "answer"]
CHUNK = 65536
LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)


class Gateway:
    """`with Gateway(server.port) as way:` connect to `way.port`. A mode holds for all connections from its call on."""

    def __init__(self, target_port: int, *, host: str = "127.0.0.1") -> None:
        self._host = host  # where it listens
        self.port = free_port()
        self.answered = 0  # HTTP requests that the server never saw
        self._target_port = target_port
        self._mode: Mode = "pass"
        self._delay_s = 0.0
        self._reply: bytes | None = None
        self._only = b""  # the requests that are answered have this in their first line
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, *exc: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self) -> None:
        """Everything passes. Connections that were half open end, as they do when a network comes back."""
        was, self._mode = self._mode, "pass"
        if was in ("silent", "answer"):
            self._call(self._drop())

    def cut(self) -> None:
        """Connections end, and new ones are closed at once."""
        self._switch("cut")

    def half_open(self) -> None:
        """Connections stay and nothing passes any more, as behind a firewall that forgot them."""
        self._mode = "silent"

    def slow(self, delay_s: float) -> None:
        """Every piece takes so long."""
        self._delay_s, self._mode = delay_s, "slow"

    def answer(self, status: int | None, *, headers: str = "", only: str = "") -> None:
        """HTTP requests are answered with a status and do not reach the server; None: they are never answered.

        `only`: those whose first line contains it; the others reach the server.
        """
        self._only = only.encode()
        head = f"HTTP/1.1 {status} -\r\nContent-Length: 0\r\n{headers}\r\n"
        self._reply = None if status is None else head.encode()
        self._switch("answer")

    def _switch(self, mode: Mode) -> None:
        self._mode = mode
        self._call(self._drop())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._host, self.port)

    async def _drop(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _close(self) -> None:
        self._server.close()
        await self._drop()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if self._mode == "answer":
                await self._answer(reader, writer)
            elif self._mode == "silent":
                while await reader.read(CHUNK):
                    pass
            elif self._mode != "cut":
                await self._forward(reader, writer)
        self._writers.discard(writer)
        writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers.add(back)
        try:
            pumps = [asyncio.create_task(self._pump(*ends)) for ends in ((reader, back), (there, writer))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            self._writers.discard(back)
            back.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            if self._mode == "silent":
                continue
            if self._mode == "slow":
                await asyncio.sleep(self._delay_s)
            writer.write(data)
            await writer.drain()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            if self._only not in head.partition(b"\r\n")[0]:
                await self._pass_one(head, body, writer)
                return
            self.answered += 1
            if self._reply is None:
                await reader.read()
                return
            writer.write(self._reply)
            await writer.drain()

    async def _pass_one(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        """One request on a connection of its own; what comes back ends the client's, too."""
        there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        back.write(head[:-2] + b"Connection: close\r\n\r\n" + body)
        writer.write(await there.read())
        await writer.drain()
        back.close()
