# SPDX-License-Identifier: Apache-2.0
"""Our own Prometheus series, beside KServe's, at /metrics."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

ROWS = Counter("fsb_serving_rows_total", "Texts answered", ["model"])
REQUESTS = Counter("fsb_serving_requests_total", "Requests by HTTP status", ["model", "status"])
SECONDS = Histogram(
    "fsb_serving_request_seconds",
    "Time from a read request to its answer, waiting included",
    ["model"],
    buckets=LATENCY_BUCKETS,
)
IN_WORK = Gauge("fsb_serving_requests_in_work", "Requests in work or waiting", ["model"])
