"""Who may send to a source that is a CURVE server: its part of the ZeroMQ Authentication Protocol (RFC 27).

Without it libzmq lets in everybody who knows the server's public key.
"""

import asyncio
from collections.abc import Set as AbstractSet

import structlog
import zmq
from zmq.utils import z85

ADDRESS = "inproc://zeromq.zap.01"  # fixed by the protocol, one in each context
VERSION = b"1.0"
OK, DENIED = (b"200", b"OK"), (b"400", b"this key is not among client_keys_file")
REQUEST_FRAMES = 7  # version, request id, domain, address, identity, mechanism, credentials: the client's public key
log = structlog.get_logger()


class Doorkeeper:
    """Answers libzmq for each client that connects. It must be there before the socket is bound."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", *, keys: AbstractSet[bytes], source: str) -> None:
        self._keys = keys
        self._source = source
        self._refused = False
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(ADDRESS)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.FD, self._answer)
        self._loop.call_soon(self._answer)  # the FD is edge-triggered, and armed by the first look

    def close(self) -> None:
        """Let nobody in any more."""
        self._loop.remove_reader(self._socket.FD)
        self._socket.close(linger=0)

    def _answer(self) -> None:
        while not self._socket.closed:
            try:
                request = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            known = len(request) == REQUEST_FRAMES and request[5] == b"CURVE" and z85.encode(request[6]) in self._keys
            status, why = OK if known else DENIED
            if not known and not self._refused:
                # Once: libzmq may try again for ever.
                log.warning("sender_refused", source=self._source, address=request[3].decode(errors="replace"))
                self._refused = True
            self._socket.send_multipart([VERSION, request[1], status, why, b"", b""], zmq.NOBLOCK)
