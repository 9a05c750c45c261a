from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from prometheus_client import REGISTRY

from pyfsb.config import Family, ServingSpec
from pyfsb.errors import ConfigError
from pyfsb.inference.deadline import check_deadline
from pyfsb.inference.protocol import Classification, TextInput
from serving.base import TextModel
from serving.errors import OverloadedError, RequestTimeoutError, RequestTooLargeError

ANSWER = Classification(label="好", score=0.75, scores={"好": 0.75, "坏": 0.25}, is_truncated=False)


class Predictor:
    """Answers row by row: 错 is a wrong input, 坏 a bug of ours, 等 waits, 慢 takes 20 ms."""

    family = Family.CLASSIFY
    input_schema = TextInput
    name = "m"

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.num_answered = 0

    def predict(self, inputs: list[TextInput]) -> list[Classification]:
        return [self.answer(item.text) for item in inputs]

    def answer(self, text: str) -> Classification:
        check_deadline()
        if text == "错":
            raise ConfigError("input 0: wrong")
        if text == "坏":
            raise RuntimeError("out of memory")
        if text == "等":
            assert self.may_go_on.wait(20)
        if text == "慢":
            time.sleep(0.02)
        self.num_answered += 1
        return ANSWER


def make_model(name: str = "m", **limits: float) -> tuple[TextModel, Predictor]:
    predictor = Predictor()
    return TextModel(name, predictor, ServingSpec.model_validate(limits)), predictor


def ask(model: TextModel, *texts: str) -> Any:
    return asyncio.run(model.predict({"instances": list(texts)}))


def test_a_model_answers_and_knows_its_tensors() -> None:
    model, _ = make_model()
    assert model.ready
    assert ask(model, "文")["predictions"][0]["label"] == "好"
    assert [item["name"] for item in model.get_input_types()] == ["text"]
    assert [item["name"] for item in model.get_output_types()] == ["result", "label", "score"]


def test_errors_of_inputs_reach_the_client() -> None:
    with pytest.raises(ConfigError, match="input 0: wrong"):
        ask(make_model()[0], "错")


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(RequestTooLargeError, match="3 rows in one request; at most 2"):
        ask(make_model(max_batch_rows=2)[0], "一", "二", "三")


def _num_requests(name: str, status: str) -> float | None:
    labels = {"model": name, "status": status}
    return REGISTRY.get_sample_value("fsb_serving_requests_total", labels)


def test_requests_are_counted_by_what_the_client_got() -> None:
    model, _ = make_model("counted")
    ask(model, "文")
    with pytest.raises(RuntimeError, match="out of memory"):
        ask(model, "坏")
    with pytest.raises(ConfigError):
        ask(model, "错")
    assert [_num_requests("counted", status) for status in ("200", "400", "500")] == [1, 1, 1]


def test_a_late_request_counts_until_its_thread_is_free() -> None:
    model, predictor = make_model(request_timeout_seconds=0.1, max_concurrent_requests=1)

    async def scene() -> None:
        with pytest.raises(RequestTimeoutError, match=r"no answer within 0\.1 s"):
            await model.predict({"instances": ["等"]})
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError, match="1 requests are in work, which is the limit"):
            await model.predict({"instances": ["二"]})
        predictor.may_go_on.set()
        while model._num_in_work:
            await asyncio.sleep(0.01)
        assert (await model.predict({"instances": ["三"]}))["predictions"]  # type: ignore[index]

    asyncio.run(scene())


def test_a_late_request_leaves_the_queue_without_being_answered() -> None:
    model, predictor = make_model(request_timeout_seconds=0.1)

    async def scene() -> None:
        late = [model.predict({"instances": [text]}) for text in ("等", "二")]
        results = await asyncio.gather(*late, return_exceptions=True)
        assert [type(result) for result in results] == [RequestTimeoutError] * 2
        assert model._num_in_work == 1
        predictor.may_go_on.set()

    asyncio.run(scene())
    model._worker.shutdown()
    assert predictor.num_answered == 1


def test_a_late_request_stops_at_its_next_row() -> None:
    model, predictor = make_model(request_timeout_seconds=0.1)
    with pytest.raises(RequestTimeoutError):
        ask(model, *["慢"] * 200)
    model._worker.shutdown()
    assert 0 < predictor.num_answered <= 10
