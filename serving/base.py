# SPDX-License-Identifier: Apache-2.0
"""A KServe model around a predictor: limits, threads, metrics; no decoding.

The predictor runs in one worker thread, so the event loop keeps answering health checks and
requests queue up to a bound. A request whose time is over leaves the queue; one that is being
answered stops at its next row. Used by `serving.__main__`.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from kserve import InferRequest, InferResponse, Model

from pyfsb.config import Family, ServingSpec
from pyfsb.errors import FsbError
from pyfsb.inference.deadline import OutOfTimeError, deadline_at
from pyfsb.inference.protocol import Prediction, Predictor, TextInput
from pyfsb.schema import Schema
from serving import metrics
from serving.errors import OverloadedError, RequestTimeoutError, RequestTooLargeError
from serving.protocol import read_v1, read_v2, write_v1, write_v2


class TextModel(Model):
    """Serves one predictor under a name."""

    def __init__(self, name: str, predictor: Predictor, limits: ServingSpec) -> None:
        """Wrap a loaded predictor.

        Args:
            name: Name in the URL.
            predictor: Any family.
            limits: Rows, concurrency and time of requests.
        """
        super().__init__(name)
        self._predictor = predictor
        self._limits = limits
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self._num_in_work = 0
        self._counting = threading.Lock()
        self.ready = True

    def get_input_types(self) -> list[dict[str, Any]]:
        """Return the tensors a V2 request may hold."""
        names = ["text"]
        if self._predictor.input_schema is not TextInput:
            names = ["input"]
        elif self._predictor.family in (Family.PAIR, Family.ANSWER):
            names = ["text", "text_pair"]
        return [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in names]

    def get_output_types(self) -> list[dict[str, Any]]:
        """Return the tensors of a V2 response."""
        outputs = {"result": "BYTES"}
        if self._predictor.family in (Family.CLASSIFY, Family.PAIR):
            outputs |= {"label": "BYTES", "score": "FP64"}
        return [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in outputs.items()]

    async def predict(
        self,
        payload: dict[str, Any] | InferRequest,
        headers: Mapping[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> dict[str, Any] | InferResponse:
        """Answer a request of either protocol.

        Raises:
            RequestError: The request or an input is wrong.
            RequestTooLargeError: It has too many rows.
            OverloadedError: Too many requests at once.
            RequestTimeoutError: The answer took too long.
        """
        started, status = time.monotonic(), 500
        try:
            response: dict[str, Any] | InferResponse
            if isinstance(payload, InferRequest):
                results = await self._answer(read_v2(payload, self._predictor.input_schema))
                response = write_v2(
                    results, model_name=self.name, request_id=payload.id or uuid.uuid4().hex
                )
            else:
                inputs = read_v1(payload, self._predictor.input_schema)
                response = write_v1(await self._answer(inputs))
            status = 200
            return response
        except FsbError as error:
            status = error.http_status
            raise
        finally:
            metrics.REQUESTS.labels(self.name, str(status)).inc()
            metrics.SECONDS.labels(self.name).observe(time.monotonic() - started)

    async def _answer(self, inputs: list[Schema]) -> list[Prediction]:
        limits = self._limits
        if len(inputs) > limits.max_batch_rows:
            raise RequestTooLargeError(
                f"{len(inputs)} rows in one request; at most {limits.max_batch_rows} are allowed"
            )
        timeout = limits.request_timeout_seconds
        self._enter()
        job = self._worker.submit(self._work, inputs, time.monotonic() + timeout)
        job.add_done_callback(self._leave)
        try:
            # The timeout cancels a job that waits; one that has begun cannot be cancelled.
            results = await asyncio.wait_for(asyncio.wrap_future(job), timeout)
        except (TimeoutError, OutOfTimeError):
            raise RequestTimeoutError(f"no answer within {timeout:g} s") from None
        metrics.ROWS.labels(self.name).inc(len(inputs))
        return results

    def _work(self, inputs: list[Schema], deadline: float) -> list[Prediction]:
        with deadline_at(deadline):
            return list(self._predictor.predict(inputs))

    def _enter(self) -> None:
        with self._counting:
            if self._num_in_work >= self._limits.max_concurrent_requests:
                raise OverloadedError(
                    f"{self._num_in_work} requests are in work, which is the limit; try again"
                )
            self._num_in_work += 1
            metrics.IN_WORK.labels(self.name).set(self._num_in_work)

    def _leave(self, _job: Future[list[Prediction]]) -> None:
        """Count a job that ended, in the thread that ended it; an unheard one counts until then."""
        with self._counting:
            self._num_in_work -= 1
            metrics.IN_WORK.labels(self.name).set(self._num_in_work)
