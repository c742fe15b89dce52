"""The demo's plant, a process of its own: an embedded broker, and sensors that publish stamped blocks to it.

It answers on standard output with one JSON object per line and obeys three words on standard input: `fault` lets the
bearing of the generated machine begin to fail now, `recordings` plays the real recordings, `stop` ends it.
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Iterator

import aiomqtt
from amqtt.broker import Broker

from fisher_agent.config import Config
from fisher_agent.demo.scenario import BLOCK_S, MILL, MOTOR, configuration, held_out
from fisher_agent.files import read_many
from fisher_agent.sources.synthetic import RotatingMachine
from fisher_agent.stages import Frame
from fisher_agent.wire import encode

TICK_S = 0.05


async def main(port: int, speed: float) -> None:
    """Serve and publish until told to stop."""
    logging.disable(logging.CRITICAL)  # the broker narrates every packet
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    words: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, lambda: words.put_nowait(sys.stdin.readline().strip() or "stop"))
    tell({"port": port})
    try:
        async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V311) as client:
            await Sensors(client, configuration(port, ""), speed).publish(words)
    finally:
        loop.remove_reader(sys.stdin)
        await broker.shutdown()


class Sensors:
    """Both machines' sensors, on one event-time clock that runs `speed` times as fast as the wall's."""

    def __init__(self, client: aiomqtt.Client, config: Config, speed: float) -> None:
        self._client = client
        self._speed = speed
        self._config = config
        self._fault_ns: int | None = None
        self._seq: dict[tuple[str, str], int] = {}
        self._t0_ns = time.time_ns() // 10**9 * 10**9
        self._began_s = time.monotonic()

    def _now_ns(self) -> int:
        return self._t0_ns + int((time.monotonic() - self._began_s) * self._speed * 1e9)

    async def publish(self, words: asyncio.Queue[str]) -> None:
        """Publish the mill for ever, and the motor's recordings when asked."""
        frames = self._mill()
        motor: Iterator[Frame] = iter(())
        waiting = next(frames)
        recorded = next(motor, None)
        while True:
            while not words.empty():
                word = words.get_nowait()
                if word == "stop":
                    return
                if word == "fault":
                    self._fault_ns = waiting.t_ns + int(BLOCK_S * 1e9)
                    tell({"fault_t_ns": self._fault_ns})
                if word == "recordings":
                    motor = self._recordings(self._now_ns())
                    recorded = next(motor, None)
            now_ns = self._now_ns()
            while waiting.t_ns + int(BLOCK_S * 1e9) <= now_ns:
                await self._send(waiting)
                waiting = next(frames)
            while recorded is not None and recorded.t_ns <= now_ns:
                await self._send(recorded)
                recorded = next(motor, None)
            await asyncio.sleep(TICK_S)

    def _mill(self) -> Iterator[Frame]:
        """The generated machine, block by block: its samples depend on the time alone, so blocks join."""
        machine, block_ns = RotatingMachine(MILL, seed=7), int(BLOCK_S * 1e9)
        t_ns = self._t0_ns
        while True:
            yield from machine.frames(t_ns, t_ns + block_ns, block_s=BLOCK_S, fault_from_ns=self._fault_ns)
            t_ns += block_ns

    def _recordings(self, t0_ns: int) -> Iterator[Frame]:
        """The held-out recordings: first the aligned ones, then the misaligned; each a block with a gap after it."""
        files = held_out()
        machine, window = self._config.machine(MOTOR), self._config.window
        for file in files:
            frames = list(read_many([file], machine=machine, window=window, t0_ns=t0_ns))
            t0_ns = frames[0].t_ns + int(3 * window.length_s * 1e9)
            tell({"recording": file.path.name, "label": file.label, "t_ns": frames[0].t_ns})
            yield from frames
        tell({"recordings": "done", "t_ns": t0_ns})

    async def _send(self, frame: Frame) -> None:
        key = (frame.machine, frame.channel)
        self._seq[key] = self._seq.get(key, -1) + 1
        payload = encode(
            "fisher-frame/1", frame.samples, t_ns=frame.t_ns, rate_hz=frame.rate_hz, seq=self._seq[key] & 0xFFFFFFFF
        )
        await self._client.publish(f"demo/{frame.machine}/{frame.channel}", payload, qos=0)


def tell(document: dict[str, object]) -> None:
    """One line to the story."""
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
