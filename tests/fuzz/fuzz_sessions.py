"""Session files damaged at random, also inside their base64: a GenieError of one line, or a session that plays on."""

from __future__ import annotations

import base64
import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mutate
import numpy as np
from fuzz_worlds import random_model

from genie_cpp import Model
from genie_cpp.errors import GenieError
from genie_cpp.play.session import Prompt, Session
from genie_cpp.play.session_file import Replay, SessionFile


def prepare(folder: Path) -> Callable[[int], None]:
    model = Model.open(random_model(random.Random(1), folder), 1, "cpu")
    hp = model.info
    session = Session(model)
    session.reset(Prompt(np.zeros((hp.frame_height, hp.frame_width, 3), np.uint8)))
    for action in (0, 0, 0):
        session.step(action)
    session.bookmark()
    session.seek(1)
    session.step(0)
    raw = SessionFile.of(session).to_bytes()
    good: dict[str, Any] = json.loads(raw)

    def one(seed: int) -> None:
        rng = random.Random(seed)
        if rng.random() < 0.3:
            data = mutate.data(raw, rng)
        else:
            bent = mutate.tree(good, rng)
            if rng.random() < 0.3 and isinstance(bent, dict) and isinstance(bent.get("roots"), list):
                for root in bent["roots"]:
                    if isinstance(root, dict) and isinstance(root.get("picture"), str) and root["picture"].isascii():
                        with contextlib.suppress(ValueError):
                            picture = base64.b64decode(root["picture"] + "===")
                            root["picture"] = base64.b64encode(mutate.data(picture, rng)).decode()
            try:
                data = json.dumps(bent).encode("utf-8", "surrogatepass")
            except ValueError:  # a number with more digits than Python can write
                return
        try:
            replay = Replay(SessionFile.from_bytes(data), model)
            replay.run()
        except GenieError as error:
            assert "\n" not in str(error), repr(str(error))
            return
        replay.session.step(0)

    return one
