"""Requests that genie-serve's own description allows or forbids, by schemathesis: no 500, and answers as described."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import schemathesis
from fastapi.testclient import TestClient
from fuzz_worlds import random_model
from hypothesis import HealthCheck, Phase, given, seed, settings
from PIL import Image
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from genie_cpp import Model
from genie_cpp.play.session import Prompt
from genie_cpp.server.api.app import create_api
from genie_cpp.server.common.limits import ServeLimits
from genie_cpp.server.run import LOCAL

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


def prepare(folder: Path) -> Callable[[int], None]:
    model = Model.open(random_model(random.Random(1), folder), 1, "cpu")
    hp = model.info
    picture = np.zeros((3 * hp.frame_height, 3 * hp.frame_width, 3), np.uint8)
    limits = ServeLimits(sessions=4, picture_bytes=100_000, picture_pixels=100_000, rollout_frames=4)
    app = create_api([model], [Prompt(picture)], limits, hosts=LOCAL)
    client = TestClient(app, "http://127.0.0.1", raise_server_exceptions=True)
    client.__enter__()
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"Host": "127.0.0.1"})
    operations = [found.ok() for found in schema.get_all_operations()]
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "PNG")
    state: dict[str, Any] = {"id": ""}

    def session() -> str:
        if not state["id"] or client.get(f"/v1/sessions/{state['id']}").status_code != 200:
            made = client.post("/v1/sessions", content=encoded.getvalue())
            state["id"] = made.headers.get("location", "/x").rpartition("/")[2]
        return str(state["id"])

    def fitting(method: str, path: str) -> Any:
        """A valid body; None: any."""
        end = path.rpartition("/")[2]
        if method == "POST" and end in ("sessions", "reset"):
            return encoded.getvalue()
        if method == "PUT":
            return client.get(f"/v1/sessions/{session()}/state").content
        return {"step": {"action": 0}, "rollout": {"actions": [0, 0]}}.get(end)

    def one(number: int) -> None:
        rng = random.Random(number)
        operation = rng.choice(operations)
        real = rng.random() < 0.7

        @seed(number)
        @settings(max_examples=1, database=None, deadline=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=operation.as_strategy())
        def call(case: Any) -> None:
            if real and rng.random() < 0.7 and (body := fitting(case.method, case.path)) is not None:
                case.body = body
            if real and "id" in (case.path_parameters or {}):
                case.path_parameters["id"] = session()
            answer = case.call(base_url="http://127.0.0.1", session=client)
            assert answer.status_code in (*range(200, 500), 503), answer.text  # 503: no room for another session
            case.validate_response(answer, checks=CHECKS)
            if answer.status_code == 201:
                client.delete(answer.headers["location"][0])

        call()

    return one
