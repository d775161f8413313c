"""The contents of `/metrics` for Prometheus. Each application has its own registry, so that two do not mix."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Counters of one application; names and labels are documented in docs/serving.md."""

    def __init__(self, open_sessions: Callable[[], int], limit: int) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        Gauge("genie_sessions", "Sessions that are open.", registry=r).set_function(open_sessions)
        Gauge("genie_sessions_limit", "Sessions that may be open.", registry=r).set(limit)
        self.opened = Counter("genie_sessions_opened", "Sessions that were opened.", registry=r)
        self.closed = Counter("genie_sessions_closed", "Sessions that were closed.", ["reason"], registry=r)
        self.frames = Counter("genie_frames", "Frames that were generated.", ["model"], registry=r)
        self.step = Histogram("genie_step_seconds", "Time of a step.", ["model"], buckets=_SECONDS, registry=r)
        self.wait = Histogram(
            "genie_turn_wait_seconds", "Time a request waited for its session.", buckets=_SECONDS, registry=r
        )
        self.responses = Counter(
            "genie_http_responses", "Answers by method, route and status.", ["method", "route", "status"], registry=r
        )
        self.slow = Counter("genie_slow_clients", "Websockets closed because their client did not read.", registry=r)
        ProcessCollector(registry=r)

    def text(self) -> bytes:
        return generate_latest(self.registry)
