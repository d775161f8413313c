"""`genie-serve`: serves worlds to programs, over HTTP and a websocket."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from genie_cpp.cli.opening import need, open_worlds
from genie_cpp.cli.options import Backend, FirstFrame, Fit, Force, Models, Offline, Threads, env
from genie_cpp.errors import GenieError


def serve(
    model: Models = None,
    prompt_frame: FirstFrame = None,
    how: Fit = "crop",
    host: Annotated[
        str, typer.Option(envvar=env("HOST"), help="Address to listen on; beyond loopback a key is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar=env("PORT"), min=0, max=65535, help="0: any that is free.")] = 8174,
    api_key: Annotated[
        str,
        typer.Option(
            envvar=env("API_KEY"), help="What clients must send. Others see command lines: prefer GENIE_API_KEY."
        ),
    ] = "",
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="A web origin that may ask, such as https://a.example. Repeatable. [none]"),
    ] = None,
    max_sessions: Annotated[int, typer.Option(min=1, max=10_000, help="Open at a time.")] = 8,
    max_frames: Annotated[int, typer.Option(min=1, max=100_000, help="Of one rollout.")] = 256,
    max_upload: Annotated[int, typer.Option(min=1, max=1024, help="MiB of a picture or a saved state.")] = 16,
    max_pixels: Annotated[int, typer.Option(min=1, max=64, help="Megapixels of a picture.")] = 16,
    idle: Annotated[float, typer.Option(min=1, max=1e6, help="Seconds until an unused session is closed.")] = 600,
    threads: Threads = None,
    backend: Backend = "auto",
    force: Force = False,
    offline: Offline = False,
) -> None:
    """Serve worlds to programs: REST and a websocket, described at /docs and /openapi.json."""
    wanted = ("fastapi", "uvicorn", "websockets", "prometheus_client")
    need(wanted, "the server needs the play extra", "pip install 'genie_cpp[play]'")
    if api_key and not re.fullmatch(r"[!-~]{16,1024}", api_key):
        raise GenieError(
            "an API key has 16 to 1024 printable ASCII characters and no spaces", "openssl rand -hex 32 makes one"
        )
    for origin in cors_origin or ():
        if not re.fullmatch(r"https?://[^/\s*?#]+", origin):
            raise GenieError(f"{origin[:80]!r} is not an origin", "such as https://a.example, without a path")
    models, prompts = open_worlds(model, threads, backend, force, prompt_frame, how)
    from genie_cpp.server.common.limits import ServeLimits
    from genie_cpp.server.run import serve_api

    limits = ServeLimits(
        sessions=max_sessions,
        rollout_frames=max_frames,
        picture_bytes=max_upload << 20,
        picture_pixels=max_pixels * 1_000_000,
        idle_seconds=idle,
        connections=(connections := max(ServeLimits.connections, 4 * max_sessions)),
        address_connections=connections * 3 // 4,
    )

    def started(address: str) -> None:
        print(f"serving at {address} ({address}docs describes it; Ctrl-C stops)", flush=True)

    serve_api(models, prompts, host, port, started, limits, api_key, tuple(cors_origin or ()))
