"""What sensors send: every payload format, through the decoder and the window cutter; tags of modes; ZeroMQ parts."""

import asyncio
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

import numpy as np

from fisher_agent.configfile import parse
from fisher_agent.errors import Unavailable
from fisher_agent.sources.zmq import ZmqFrames
from fisher_agent.stages import Frame, Tag
from fisher_agent.stats import Stats
from fisher_agent.windows import SnapshotWindows, StreamWindows
from fisher_agent.wire import MAX_T_NS, Decoder, decoder_for, encode
from fuzz.harness import Opened, Target
from fuzz.mutate import damaged, json_of, mixed

RATE_HZ = 12_000.0
T_NS = 1_795_210_782_324_000_000
MONO_NS = 5_000_000_000
BARE = ("f32le", "f64le", "i16le", "i24le", "i32le")
SAMPLES = np.array([0, 1, -2, 32767, -32768, 0.5], np.float32)
TABLE = np.arange(12, dtype=np.float32).reshape(3, 4)
SOURCE = 'site = "s"\nedge = "e"\n[[sources]]\nname = "plant"\ntype = "zmq"\nurl = "tcp://127.0.0.1:1"\n'


def _decoder(form: str, *, channels: Sequence[str] = ("a",), **keys: object) -> Decoder:
    text = SOURCE + '[[machines]]\nid = "m"\n'
    for index, channel in enumerate(channels):
        text += f'[[machines.channels]]\nid = "{channel}"\nsource = "plant"\ntopic = "t"\nrate_hz = {RATE_HZ}\n'
        text += f'format = "{form}"\nindex = {index}\n'
        text += "".join(f'{k} = "{v}"\n' if isinstance(v, str) else f"{k} = {v}\n" for k, v in keys.items())
    return decoder_for(parse(text), "plant")


def _reader(decoder: Decoder) -> Callable[[bytes], None]:
    """Decode a message twice, and cut windows of what it gives after, before and among good blocks."""

    def read(data: bytes) -> None:
        found = decoder.decode("t", data, mono_ns=MONO_NS, utc_ns=T_NS + MONO_NS)
        again = decoder.decode("t", data, mono_ns=2 * MONO_NS, utc_ns=T_NS + 2 * MONO_NS)
        for frame, later in zip(found, again, strict=True):
            _checked(frame)
            good = Frame(frame.machine, frame.channel, T_NS, RATE_HZ, np.ones(600, np.float32))
            lengths = {"machine": "m", "channel": "a", "length_ns": 50_000_000, "hop_ns": 25_000_000}
            for rate_hz in (RATE_HZ, min(max(frame.rate_hz, 1 / 3600), 200_000.0)):
                for cutter in (
                    StreamWindows(**lengths, rate_hz=rate_hz, lateness_ns=10**9),
                    SnapshotWindows(**lengths, rate_hz=rate_hz),
                ):
                    windows = [w for f in (good, frame, later, good) for w in cutter.push(f)]
                    for window in [*windows, *cutter.flush()]:
                        assert abs(window.end_ns) < 2**63, "a window's time does not fit 64 bits"

    return read


def _checked(frame: Frame) -> None:
    if isinstance(frame, Tag):
        assert frame.word
        return
    assert frame.samples.dtype == np.float32
    assert frame.samples.ndim == 1
    assert np.isfinite(frame.samples).all(), "a sample is not finite"
    assert 0 <= frame.t_ns < 2**63, "the time of a frame does not fit 64 bits"
    assert 0 < frame.rate_hz < 1e9


@contextmanager
def _bare(_work: Path) -> Iterator[Opened]:
    """The first byte says how the rest is read."""
    readers = [_reader(_decoder(form, scale=scale)) for form in BARE for scale in (1.0, -0.25, 1e30)]
    readers += [_reader(_decoder(form, channels=("a", "b", "c"))) for form in BARE]

    def run(data: bytes) -> None:
        readers[(data[0] if data else 0) % len(readers)](data[1:])

    samples = [bytes([n]) + encode(form, TABLE) for n, form in enumerate(BARE)]
    yield Opened([bytes([3 * n]) + encode(form, SAMPLES) for n, form in enumerate(BARE)], _of(samples), run)


def _of(samples: Sequence[bytes]) -> Callable[[Random], bytes]:
    return lambda rng: damaged(rng, samples)


def _header(rng: Random) -> bytes:
    """A fisher-frame/1 whose header and body agree, with one field at an edge."""
    code, width, flags = rng.choice((1, 2, 3, 4)), rng.choice((1, 1, 1, 2, 3, 255)), 0
    count = rng.choice((0, 1, 2, 100))
    t_ns = rng.choice((T_NS, 0, -1, 2**63 - 1, -(2**63), MAX_T_NS, MAX_T_NS + 1))
    rate_hz = rng.choice((RATE_HZ, 0.0, -1.0, 5e-324, 1e-300, 1e-9, 1e7, 1e8, float("nan"), float("inf")))
    head = struct.pack("<4sBBHqdII", b"FSH1", code, width, flags, t_ns, rate_hz, rng.choice((0, 2**32 - 1)), count)
    return head + rng.randbytes(width * count * {1: 4, 2: 2, 3: 4, 4: 8}[code])


@contextmanager
def _frame(_work: Path) -> Iterator[Opened]:
    whole = [encode("fisher-frame/1", SAMPLES, t_ns=T_NS, rate_hz=RATE_HZ, frame_dtype=code) for code in (1, 2, 3, 4)]
    yield Opened(whole, mixed((0.6, _of(whole)), (0.4, _header)), _reader(_decoder("fisher-frame/1")))


JSON = (
    {"t": T_NS / 1e9, "rate": RATE_HZ, "seq": 17, "samples": [0, 1, -2, 0.5]},
    {"t": T_NS // 1_000_000, "samples": [1.5] * 50},
    {"rate": 12000, "channels": {"a": [1, 2], "b": [3, 4]}},
    {"t": T_NS, "channels": {"a": [0.1], "b": [0.2]}},
)


@contextmanager
def _json(_work: Path) -> Iterator[Opened]:
    """With the sender's clock, with ours, and of two channels, all of the same bytes."""
    readers = [
        _reader(_decoder("json")),
        _reader(_decoder("json", clock="arrival")),
        _reader(_decoder("json", channels=("a", "b"))),
    ]

    def run(data: bytes) -> None:
        refused = None
        for read in readers:
            try:
                read(data)
                return
            except Target("", _json).allowed as error:
                refused = error
        if refused is not None:
            raise refused

    whole = [b'{"samples":[1,2]}', b'{"t":1795210782.324,"rate":12000,"seq":1,"samples":[1,2]}']
    yield Opened(whole, lambda rng: json_of(rng, JSON), run)


TAGS = ({"mode": "winding", "t": T_NS}, {"value": 3.0, "timestamp": 1_795_210_782_324}, {"v": True}, 3, "idle", 3.5)


@contextmanager
def _tags(_work: Path) -> Iterator[Opened]:
    machine = '[[machines]]\nid = "m"\nmode = { topic = "t", source = "plant" }\n'
    channel = f'[[machines.channels]]\nid = "a"\nsource = "plant"\ntopic = "x"\nrate_hz = {RATE_HZ}\n'
    broker = SOURCE.replace("zmq", "mqtt").replace("tcp:", "mqtt:")
    decoder = decoder_for(parse(broker + machine + channel), "plant")

    def run(data: bytes) -> None:
        for tag in decoder.decode("t", data, mono_ns=MONO_NS, utc_ns=T_NS):
            _checked(tag)
            assert 0 <= tag.t_ns < 2**63

    whole = [b"winding", b'"winding"', b"3", b'{"mode":"idle"}']
    yield Opened(whole, mixed((0.8, lambda rng: json_of(rng, TAGS)), (0.2, _of(whole))), run)


@contextmanager
def _zmq(_work: Path) -> Iterator[Opened]:
    """Multipart messages, their parts between 0xFF 0x00; through the source and its intake."""
    text = SOURCE + '[[machines]]\nid = "m"\n[[machines.channels]]\nid = "a"\nsource = "plant"\n'
    config = parse(f'{text}topic = "t"\nrate_hz = {RATE_HZ}\n')
    loop = asyncio.new_event_loop()

    async def take(parts: list[bytes]) -> None:
        source = ZmqFrames(config.sources[0], decoder_for(config, "plant"), stats=Stats())  # type: ignore[arg-type]
        source._take(parts)
        source._intake.lose(Unavailable("the end"))
        try:
            async for frames in source.frames():
                for frame in frames:
                    _checked(frame)
        finally:
            source._intake.end()

    def run(data: bytes) -> None:
        try:
            loop.run_until_complete(take(data.split(b"\xff\x00")))
        except Unavailable:  # how this stream ends
            return

    whole = [b"t\xff\x00" + encode("f32le", SAMPLES), b"t\xff\x00x\xff\x00" + encode("f32le", SAMPLES), b"only"]
    yield Opened(whole, _of(whole), run)
    loop.close()


TARGETS = (
    Target("payload-bare", _bare),
    Target("payload-frame", _frame),
    Target("payload-json", _json),
    Target("payload-tag", _tags),
    Target("zmq-parts", _zmq, share=0.5),
)
