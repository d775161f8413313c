"""Clients' pictures are decoded in another process. It is killed if one takes too long; the next is read as usual."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from genie_cpp.errors import ImageError
from genie_cpp.frames import decode_image, fit
from genie_cpp.server.common import decoder as module
from genie_cpp.server.common.decoder import Decoder


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    made = Decoder()
    yield made
    made._end()


def process(decoder: Decoder) -> subprocess.Popen[bytes]:
    assert decoder._process is not None
    return decoder._process


def test_frames_are_those_of_this_process(decoder: Decoder) -> None:
    for width, height in ((16, 16), (40, 20), (9, 300)):
        want = fit(decode_image(png(width, height)), 24, 16)
        np.testing.assert_array_equal(decoder.frame(png(width, height), 100_000, 24, 16), want)


def test_faults_are_told_with_their_hints_and_the_process_goes_on(decoder: Decoder) -> None:
    for data, message in (
        (b"", "the picture is"),
        (b"x" * 1000, "is not a picture"),
        (png(400, 400), "million are the"),
    ):
        with pytest.raises(ImageError, match=message):
            decoder.frame(data, 100_000, 16, 16)
    first = process(decoder).pid
    assert decoder.frame(png(16, 16), 100_000, 16, 16).shape == (16, 16, 3)
    assert process(decoder).pid == first


@pytest.mark.skipif(os.name != "posix", reason="stops the process")
def test_one_that_takes_too_long_is_killed(decoder: Decoder) -> None:
    decoder.frame(png(16, 16), 100_000, 16, 16)
    first = process(decoder)
    decoder.seconds = 0.5
    os.kill(first.pid, signal.SIGSTOP)  # as if decoding never ended
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"longer than 0\.5 seconds to decode"):
        decoder.frame(png(16, 16), 100_000, 16, 16)
    assert time.monotonic() - started < 5
    assert first.poll() is not None
    decoder.seconds = 10
    assert decoder.frame(png(16, 16), 100_000, 16, 16).shape == (16, 16, 3)


def test_one_that_died_is_replaced(decoder: Decoder) -> None:
    decoder.frame(png(16, 16), 100_000, 16, 16)
    process(decoder).kill()
    process(decoder).wait()
    assert decoder.frame(png(16, 16), 100_000, 16, 16).shape == (16, 16, 3)


def test_called_from_many_threads(decoder: Decoder) -> None:
    got: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda k=k: got.append(decoder.frame(png(16 + k, 16), 100_000, 8, 8)))
        for k in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 12


def test_it_ends_with_its_parent() -> None:
    code = (
        "import io, sys, time\nfrom PIL import Image\nfrom genie_cpp.server.common.decoder import Decoder\n"
        "out = io.BytesIO(); Image.new('RGB', (16, 16)).save(out, 'PNG')\n"
        "d = Decoder(); d.frame(out.getvalue(), 1000, 8, 8); print(d._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except OSError:
            return
        state = open(f"/proc/{child}/stat", encoding="ascii").read().split()[2] if sys.platform == "linux" else ""
        if state == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the decoder outlives its parent")


def test_a_packed_program_decodes_where_it_is(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "frozen", True, raising=False)
    assert decoder.frame(png(16, 16), 100_000, 8, 8).shape == (8, 8, 3)
    assert decoder._process is None
