"""The application of `genie-serve`: the API, its documentation, health and metrics, behind the guard."""

from __future__ import annotations

import asyncio
import contextlib
import html
import re
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from genie_cpp.errors import GenieError
from genie_cpp.model import Model
from genie_cpp.play.session import Prompt
from genie_cpp.server.api import metrics, routes, schema, websocket
from genie_cpp.server.api.guard import Guard
from genie_cpp.server.api.sessions import Sessions
from genie_cpp.server.common.faults import told
from genie_cpp.server.common.limits import ServeLimits
from genie_cpp.version import __version__

_ABOUT = """Play Genie world models. Open a session, step it with latent actions, take frames as PNG, npy or JSON.

Every fault is `{"error": …, "hint": …}`. Where the server has a key, send `Authorization: Bearer …`. Frames as they
come: websocket `/v1/sessions/{id}/ws`, subprotocol `genie-serve.1`."""
_METHODS = ("get", "post", "put", "patch", "delete")


def create_api(
    models: Sequence[Model],
    prompts: Sequence[Prompt | None],
    limits: ServeLimits | None = None,
    api_key: str = "",
    origins: Collection[str] = (),
    hosts: Collection[str] | None = None,
) -> FastAPI:
    """An application that serves `models`, each with its prompt (None: clients send a picture).

    api_key: what clients must send; empty: nothing. origins: web pages that may send requests. hosts: host names to
    answer to, None: any. Without a key, only names of this machine are safe.
    """
    bounds = limits or ServeLimits()
    sessions = Sessions(models, prompts, bounds)

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(sessions.sweep())
        yield
        sweeper.cancel()
        await sessions.close_all()

    app = FastAPI(
        title="genie-serve", version=__version__, description=_ABOUT, lifespan=life, docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.state.sessions = sessions
    app.include_router(routes.router(sessions))
    app.include_router(websocket.router(sessions))

    def answered(method: str, route: str, status: int) -> None:
        sessions.metrics.responses.labels(method, route, str(status)).inc()

    app.add_middleware(Guard, limits=bounds, answered=answered, api_key=api_key, origins=origins, hosts=hosts)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=[method.upper() for method in _METHODS],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["genie-frame-number", "genie-seconds", "Location"],
        )

    @app.get("/health", tags=["server"])
    async def health() -> schema.Health:
        """Whether the server answers; needs no key."""
        return schema.Health(version=__version__, sessions=len(sessions), sessions_limit=bounds.sessions)

    @app.get("/metrics", tags=["server"], response_class=Response)
    async def prometheus() -> Response:
        """Counters for Prometheus."""
        return Response(sessions.metrics.text(), headers={"Content-Type": metrics.CONTENT_TYPE})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(
            _page(app.openapi()), headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        )

    @app.exception_handler(GenieError)
    @app.exception_handler(MemoryError)
    async def fault(request: Request, error: Exception) -> JSONResponse:
        status, body = told(error)
        return JSONResponse(body, status, {"Retry-After": "5"} if status == 503 else None)

    @app.exception_handler(RequestValidationError)
    async def form(request: Request, error: RequestValidationError) -> JSONResponse:
        hint = "/openapi.json says what is taken"
        if "json" not in request.headers.get("content-type", "") and error.errors()[0]["loc"] == ("body",):
            hint = "send JSON, with Content-Type: application/json"
        return JSONResponse({"error": schema.first(error.errors()), "hint": hint}, 422)

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        detail: Any = error.detail
        body = (
            detail if isinstance(detail, dict) else {"error": str(detail).lower(), "hint": "/docs lists what there is"}
        )
        return JSONResponse(body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def ours(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(told(error)[1], 500)

    return app


def _page(document: dict[str, Any]) -> str:
    """The OpenAPI document as plain HTML, which needs no script in the browser."""
    text = html.escape
    about = re.sub(r"`(.+?)`", r"<code>\1</code>", text(document["info"]["description"]))
    rows = []
    for path, methods in document["paths"].items():
        for method, what in methods.items():
            if method not in _METHODS:
                continue
            asks = [
                f"<code>{text(p['name'])}</code> {text(p.get('description', ''))}"
                for p in what.get("parameters", [])
                if p["in"] == "query"
            ]
            for kind, content in what.get("requestBody", {}).get("content", {}).items():
                name = content["schema"].get("$ref", "").rpartition("/")[2]
                fields = document["components"]["schemas"].get(name, {}).get("properties", {})
                asks.append(f"body {text(kind)} " + ", ".join(f"<code>{text(field)}</code>" for field in fields))
            rows.append(
                f"<tr><td><code>{method.upper()}</code><td><code>{text(path)}</code>"
                f"<td>{text(what.get('description', ''))}<td>{'<br>'.join(asks)}"
            )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>genie-serve</title>"
        "<meta name=viewport content='width=device-width'><style>:root{color-scheme:light dark}"
        "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse;width:100%}td{border-top:1px solid #8886;padding:.4rem .8rem .4rem 0}"
        "td{vertical-align:top}"
        "pre{white-space:pre-wrap;font:inherit}</style>"
        f"<h1>genie-serve {text(document['info']['version'])}</h1><pre>{about}</pre>"
        f"<p><a href=/openapi.json>/openapi.json</a> is the same for programs.<table>{''.join(rows)}</table></html>"
    )
