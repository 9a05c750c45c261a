# SPDX-License-Identifier: Apache-2.0
"""KServe's two protocols to and from our typed inputs and results.

V1  POST /v1/models/NAME:predict   {"instances": ["文本", {"text": "a", "text_pair": "b"}]}
                                   {"predictions": [{"label": …, "score": …, …}]}
                                   of choices, extraction and images: {"instances": [{…}]}
V2  POST /v2/models/NAME/infer     inputs: BYTES tensor `text` [n], for pairs also `text_pair` [n];
                                   of those families `input` [n], the JSON of each
                                   outputs: `result` [n], the JSON of each result; classifiers
                                   also `label` [n] and `score` [n]

Both carry the same results. Pure functions; nothing here knows a model.

Source: KServe's V1 data plane; the Open Inference Protocol (V2).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse
from pydantic import ValidationError

from pyfsb.inference.protocol import Classification, Prediction, TextInput
from pyfsb.schema import Schema, canonical_json
from serving.errors import RequestError

_MAX_SHOWN: Final = 80
"""Characters of a wrong value in an error text at most."""


def read_v1(body: object, schema: type[Schema] = TextInput) -> list[Schema]:
    """Return the inputs of a V1 body.

    Args:
        body: The parsed JSON.
        schema: What the model takes; of `TextInput` a text alone does.

    Raises:
        RequestError: Names the instance that is wrong and what would be right.
    """
    if not isinstance(body, Mapping):
        raise RequestError(f'expected {{"instances": [text, …]}}, got {_shown(body)}')
    instances = body.get("instances")
    if not isinstance(instances, list):
        raise RequestError('expected {"instances": [text, …]}; there is no list "instances"')
    return [_instance(item, f"instance {n}", schema) for n, item in enumerate(instances)]


def read_v2(request: InferRequest, schema: type[Schema] = TextInput) -> list[Schema]:
    """Return the inputs of a V2 request.

    Args:
        request: With tensors `text` and `text_pair`; of models that take no `TextInput` one tensor
            `input` with the JSON of each.
        schema: What the model takes.

    Raises:
        RequestError: A tensor is missing, not BYTES, or of another length.
    """
    tensors = {tensor.name: tensor for tensor in request.inputs}
    if schema is not TextInput:
        return _read_json(tensors, schema)
    if "text" not in tensors:
        raise RequestError(f"expected a tensor 'text'; got {', '.join(tensors) or 'none'}")
    unknown = sorted(set(tensors) - {"text", "text_pair"})
    if unknown:
        raise RequestError(f"unknown tensor {unknown[0]!r}; expected 'text' and 'text_pair'")
    texts = _strings(tensors["text"])
    pairs: Sequence[str | None] = [None] * len(texts)
    if "text_pair" in tensors:
        pairs = _strings(tensors["text_pair"])
        if len(pairs) != len(texts):
            raise RequestError(f"{len(texts)} texts but {len(pairs)} second texts")
    return [TextInput(text=text, text_pair=pair) for text, pair in zip(texts, pairs, strict=True)]


def write_v1(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return the V1 body of results."""
    return {"predictions": [prediction.to_json() for prediction in predictions]}


def write_v2(
    predictions: Sequence[Prediction], *, model_name: str, request_id: str
) -> InferResponse:
    """Return the V2 response of results."""
    size = [len(predictions)]
    results = [canonical_json(prediction.to_json()) for prediction in predictions]
    outputs = [_bytes_output("result", size, results)]
    labelled = [item for item in predictions if isinstance(item, Classification)]
    if labelled and len(labelled) == len(predictions):
        outputs.append(_bytes_output("label", size, [item.label for item in labelled]))
        score = InferOutput(name="score", shape=size, datatype="FP64")
        score.set_data_from_numpy(
            np.array([item.score for item in labelled], dtype=np.float64), binary_data=False
        )
        outputs.append(score)
    return InferResponse(response_id=request_id, model_name=model_name, infer_outputs=outputs)


def _read_json(tensors: Mapping[str, Any], schema: type[Schema]) -> list[Schema]:
    """Return the inputs that the one tensor `input` holds as JSON."""
    if set(tensors) != {"input"}:
        raise RequestError(
            f"expected one tensor 'input' of JSON texts; got {', '.join(tensors) or 'none'}"
        )
    found = []
    for number, text in enumerate(_strings(tensors["input"])):
        name = f"tensor 'input', value {number}"
        try:
            item = json.loads(text)
        except ValueError as exc:
            raise RequestError(f"{name} is not JSON: {exc}") from None
        found.append(_instance(item, name, schema))
    return found


def _instance(item: object, name: str, schema: type[Schema]) -> Schema:
    if isinstance(item, str) and schema is TextInput:
        return TextInput(text=item)
    try:
        return schema.model_validate(item)
    except ValidationError as exc:
        if schema is TextInput:
            expected = 'a text or {"text": …, "text_pair": …}'
        else:
            first = exc.errors()[0]
            place = ".".join(map(str, first["loc"])) or "not an object"
            fields = ", ".join(schema.model_fields)
            expected = f"an object of {fields} ({place}: {first['msg']})"
        raise RequestError(f"{name}: expected {expected}, got {_shown(item)}") from None


def _strings(tensor: Any) -> list[str]:
    if tensor.datatype != "BYTES":
        raise RequestError(f"tensor {tensor.name!r} is {tensor.datatype}; expected BYTES")
    try:
        values = np.asarray(tensor.as_numpy(), dtype=object).reshape(-1).tolist()
    except (ValueError, struct.error) as exc:
        raise RequestError(
            f"tensor {tensor.name!r} does not have shape {list(tensor.shape)}: {exc}"
        ) from None
    return [_text(value, f"tensor {tensor.name!r}, value {n}") for n, value in enumerate(values)]


def _text(value: object, name: str) -> str:
    if not isinstance(value, str | bytes):
        raise RequestError(f"{name}: expected a text, got {_shown(value)}")
    try:
        # A text that JSON made of half a surrogate pair cannot be encoded.
        return (value if isinstance(value, bytes) else value.encode()).decode()
    except UnicodeError as exc:
        raise RequestError(f"{name} is not UTF-8 text: {exc}") from None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _bytes_output(name: str, shape: list[int], values: Sequence[str]) -> InferOutput:
    output = InferOutput(name=name, shape=shape, datatype="BYTES")
    output.set_data_from_numpy(np.array(list(values), dtype=object), binary_data=False)
    return output
