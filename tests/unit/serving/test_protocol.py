from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from kserve import InferInput, InferRequest

from pyfsb.errors import FsbError
from pyfsb.inference.choose import ChoiceInput
from pyfsb.inference.protocol import Classification, Generation, TextInput
from serving.errors import (
    ClosedPathError,
    OverloadedError,
    RequestError,
    RequestTimeoutError,
    RequestTooLargeError,
)
from serving.middleware import BodyLimit, JsonBodies
from serving.protocol import read_v1, read_v2, write_v1, write_v2

ANSWER = Classification(label="好", score=0.75, scores={"好": 0.75, "坏": 0.25}, is_truncated=False)


def tensor(name: str, values: list[Any], datatype: str = "BYTES") -> InferInput:
    return InferInput(name=name, shape=[len(values)], datatype=datatype, data=values)


def v2(*tensors: InferInput) -> InferRequest:
    return InferRequest(model_name="m", infer_inputs=list(tensors), request_id="7")


def test_v1_takes_texts_and_objects() -> None:
    body = {"instances": ["文", {"text": "a", "text_pair": "b"}]}
    assert read_v1(body) == [TextInput(text="文"), TextInput(text="a", text_pair="b")]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, 'expected {"instances"'),
        ({"instances": "文"}, 'expected {"instances"'),
        ({"instances": [3]}, "instance 0: expected a text or"),
        ({"instances": ["a", {"txt": "b"}]}, "instance 1: expected a text or"),
        ([1], r'expected {"instances": \[text, …\]}, got \[1\]'),
        ("x", r'expected {"instances": \[text, …\]}, got \'x\''),
        (None, r'expected {"instances": \[text, …\]}, got None'),
        pytest.param(b"\x80" * 99, "got b'.{78}…$", id="bytes"),
    ],
)
def test_wrong_v1_bodies_are_explained(body: object, text: str) -> None:
    with pytest.raises(RequestError, match=text):
        read_v1(body)


def test_v2_takes_byte_tensors() -> None:
    assert read_v2(v2(tensor("text", ["文", "字"]))) == [TextInput(text="文"), TextInput(text="字")]
    pairs = read_v2(v2(tensor("text", ["a"]), tensor("text_pair", ["b"])))
    assert pairs == [TextInput(text="a", text_pair="b")]
    assert read_v2(v2(tensor("text", ["文".encode()])))[0].text == "文"


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ([tensor("txt", ["a"])], "expected a tensor 'text'; got txt"),
        ([tensor("text", [1], "INT32")], "tensor 'text' is INT32; expected BYTES"),
        ([tensor("text", ["a"]), tensor("x", ["b"])], "unknown tensor 'x'"),
        ([tensor("text", ["a"]), tensor("text_pair", ["b", "c"])], "1 texts but 2 second texts"),
        ([tensor("text", [b"\xff"])], "tensor 'text', value 0 is not UTF-8 text"),
        ([tensor("text", ["a", "\ud800"])], "tensor 'text', value 1 is not UTF-8 text"),
        ([tensor("text", ["a", None])], "tensor 'text', value 1: expected a text, got None"),
        ([tensor("text", [1])], "tensor 'text', value 0: expected a text, got 1"),
        ([tensor("text", [{"a": 1}])], "value 0: expected a text, got {'a': 1}"),
        ([tensor("text", [["a", "b"]])], r"tensor 'text' does not have shape \[1\]: cannot resh"),
    ],
)
def test_wrong_v2_requests_are_explained(tensors: list[InferInput], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        read_v2(v2(*tensors))


def test_both_protocols_carry_the_same_result() -> None:
    first = write_v1([ANSWER])["predictions"][0]
    response, _ = write_v2([ANSWER], model_name="m", request_id="7").to_rest()
    outputs = {output["name"]: output["data"] for output in response["outputs"]}
    assert json.loads(outputs["result"][0]) == first
    assert (outputs["label"], outputs["score"]) == (["好"], [0.75])
    assert (response["id"], response["model_name"]) == ("7", "m")


def test_other_families_have_no_label() -> None:
    generation = Generation(text="续", num_tokens=1, is_truncated=False)
    response, _ = write_v2([generation], model_name="m", request_id="7").to_rest()
    assert [output["name"] for output in response["outputs"]] == ["result"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (RequestError, 400), (ClosedPathError, 404), (RequestTooLargeError, 413),
        (OverloadedError, 503), (RequestTimeoutError, 504),
    ],
)  # fmt: skip
def test_statuses(kind: type[FsbError], status: int) -> None:
    assert kind.http_status == status


async def _through(app: Any, chunks: list[bytes], headers: list[tuple[bytes, bytes]]) -> list[Any]:
    sent: list[Any] = []
    pending = [
        {"type": "http.request", "body": chunk, "more_body": place + 1 < len(chunks)}
        for place, chunk in enumerate(chunks)
    ]

    async def receive() -> Any:
        return pending.pop(0) if pending else await asyncio.sleep(9)

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": "POST", "headers": headers}, receive, send)
    return sent


async def _reader(scope: Any, receive: Any, send: Any) -> None:
    """A framework that turns any failure to read into a 400."""
    status, body = 200, b""
    try:
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
    except Exception:
        status = 400
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send(
        {"type": "http.response.body", "body": body + dict(scope["headers"])[b"content-type"]}
    )


@pytest.mark.parametrize(
    ("chunks", "status"), [([b"1234", b"5678"], 200), ([b"1234", b"56789"], 413), ([b"x" * 9], 413)]
)
def test_bodies_over_the_bound_answer_413(chunks: list[bytes], status: int) -> None:
    app = BodyLimit(_reader, max_bytes=8, timeout_seconds=1)
    sent = asyncio.run(_through(app, chunks, [(b"content-type", b"x")]))
    assert [message["status"] for message in sent if "status" in message] == [status]


def test_a_client_that_stops_sending_answers_504() -> None:
    app = BodyLimit(_reader, max_bytes=8, timeout_seconds=0.05)

    async def scene() -> list[Any]:
        sent: list[Any] = []

        async def receive() -> Any:
            await asyncio.sleep(9)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"x")]}
        await app(scope, receive, send)
        return sent

    assert asyncio.run(scene())[0]["status"] == 504


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ([], b"application/json"),
        ([(b"content-type", b"application/x-www-form-urlencoded")], b"application/json"),
        ([(b"content-type", b"application/json; charset=utf-8")], b"application/json"),
        ([(b"content-type", b"application/octet-stream")], b"application/octet-stream"),
        (
            [(b"content-type", b"application/json"), (b"inference-header-content-length", b"3")],
            b"application/json",
        ),
    ],
)
def test_bodies_are_read_as_json_however_they_are_called(
    headers: list[tuple[bytes, bytes]], seen: bytes
) -> None:
    sent = asyncio.run(_through(JsonBodies(_reader), [b""], headers))
    assert sent[1]["body"] == seen


CHOICE = {"text": "今天下雨", "question": "天气？", "choices": ["晴", "雨"]}


def test_families_with_inputs_of_their_own_take_objects_of_their_fields() -> None:
    expected = [ChoiceInput.model_validate(CHOICE)]
    assert read_v1({"instances": [CHOICE]}, ChoiceInput) == expected
    text = json.dumps(CHOICE, ensure_ascii=False)
    assert read_v2(v2(tensor("input", [text])), ChoiceInput) == expected


def test_wrong_objects_of_such_families_are_explained() -> None:
    with pytest.raises(RequestError, match=r"instance 0: expected an object of text, .*choices"):
        read_v1({"instances": [{"text": "a"}]}, ChoiceInput)
    with pytest.raises(RequestError, match="instance 0: expected an object of"):
        read_v1({"instances": ["a"]}, ChoiceInput)
    with pytest.raises(RequestError, match="one tensor 'input' of JSON texts; got text"):
        read_v2(v2(tensor("text", ["a"])), ChoiceInput)
    with pytest.raises(RequestError, match="value 0 is not JSON"):
        read_v2(v2(tensor("input", ["{"])), ChoiceInput)
