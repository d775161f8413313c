"""Clients' pictures are decoded in a separate process, which is killed if it takes too long. Steps go on meanwhile."""

from __future__ import annotations

import contextlib
import json
import signal
import struct
import subprocess
import sys
import threading
from typing import IO

import numpy as np

from genie_cpp.errors import ImageError
from genie_cpp.frames import Frame, decode_image, fit

_HEAD = struct.Struct("<QQII")  # bytes of the file, most pixels, width and height of the frame
_START = "import sys; sys.path[:] = {path!r}; from genie_cpp.server.common.decoder import work; work()"


class Decoder:
    """Picture files -> frames, one at a time. Thread-safe.

    The process starts with the first picture and ends with this one. A packed program (PyInstaller) has no Python to
    start. It decodes in its own process, with all limits except the time.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def frame(self, data: bytes, most_pixels: int, width: int, height: int) -> Frame:
        """uint8 [height, width, 3], cropped to fit. Raises ImageError, also if it takes longer than `seconds`."""
        with self._lock:
            if getattr(sys, "frozen", False):
                return fit(decode_image(data, most_pixels), width, height)
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            late = threading.Event()

            def stop() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(self.seconds, stop)
            timer.start()
            try:
                process.stdin.write(_HEAD.pack(len(data), most_pixels, width, height) + data)
                process.stdin.flush()
                fault, length = struct.unpack("<?Q", _exactly(process.stdout, 9))
                answer = _exactly(process.stdout, length)
            except (OSError, EOFError, ValueError):
                self._end()
                if late.is_set():
                    raise ImageError(
                        f"the picture takes longer than {self.seconds:g} seconds to decode", "send a smaller one"
                    ) from None
                raise ImageError("the picture cannot be decoded: its decoder ended", "send another file") from None
            finally:
                timer.cancel()
        if fault:
            message, hint = json.loads(answer)
            raise ImageError(message, hint)
        return np.frombuffer(answer, np.uint8).reshape(height, width, 3).copy()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            command = [sys.executable, "-c", _START.format(path=sys.path)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self._process.stdout is not None
            self._process.stdout.read(1)  # wait until it is ready, so that only decoding is timed
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            for stream in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):
                    assert stream is not None
                    stream.close()
            self._process.wait()
            self._process = None


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def work() -> None:
    """Runs in the process: answer until the parent is gone. Ctrl-C is handled by the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, out = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing else may write to stdout
    out.write(b"r")
    out.flush()
    while head := source.read(_HEAD.size):
        length, most_pixels, width, height = _HEAD.unpack(head)
        data, fault = source.read(length), False
        try:
            answer = fit(decode_image(data, most_pixels), width, height).tobytes()
        except ImageError as error:
            fault, answer = True, json.dumps([str(error), error.hint]).encode()
        except MemoryError:
            fault, answer = True, json.dumps(["the picture is too large for the memory that is free", ""]).encode()
        out.write(struct.pack("<?Q", fault, len(answer)) + answer)
        out.flush()
