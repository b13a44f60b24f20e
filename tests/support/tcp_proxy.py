"""A wire between two processes that a test can cut, silence, or cut at a word."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

_PIECE_BYTES = 65536


class TcpProxy:
    """Forwards connections to a port of this machine. Leave it with a `with` block."""

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._is_cut = False
        self._flows = threading.Event()
        self._flows.set()
        self._word: bytes | None = None
        self._hands_on_word = True
        self._is_withheld = False
        self.words_seen = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Reset every connection, and let nobody in."""
        self._is_cut = True
        self._reset_all()

    def heal(self) -> None:
        """Let everybody in again."""
        self._is_cut = False
        self._flows.set()

    def silence(self) -> None:
        """Keep connections open, and let nothing through in either direction."""
        self._flows.clear()

    def cut_once_after(self, word: bytes) -> None:
        """When a client sends `word`, hand it on, and cut that connection before the answer comes."""
        self._word, self._is_withheld = word, False

    def cut_once_before(self, word: bytes) -> None:
        """When a client sends `word`, cut that connection, and keep what it sent from the other side."""
        self._word, self._is_withheld = word, True

    def close(self) -> None:
        """Be gone."""
        self._listener.close()
        self._flows.set()
        self._reset_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._is_cut:
                    raise ConnectionRefusedError
                server = socket.create_connection(self._target)
            except OSError:
                _reset(client)
                continue
            with self._lock:
                self._pairs.append((client, server))
            for source, sink, is_client in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._forward, args=(source, sink, is_client), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, is_client: bool) -> None:
        try:
            while piece := source.recv(_PIECE_BYTES):
                self._flows.wait()
                is_cut = is_client and self._word is not None and self._word in piece
                if not (is_cut and self._is_withheld):
                    sink.sendall(piece)
                if is_cut:
                    self._word = None
                    self.words_seen += 1
                    _reset(source)
                    return
        except OSError:
            pass
        finally:
            # The other side learns it, and what it was sent before still arrives there.
            for end in (source, sink):
                _shut(end)

    def _reset_all(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                _reset(end)


def _reset(connection: socket.socket) -> None:
    _shut(connection)
    connection.close()


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
