from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from kserve.model_server import app
from starlette.testclient import TestClient

from pyfsb.config import ServingSpec
from pyfsb.errors import ConfigError
from serving.__main__ import build_parser, inference_url, read_limits
from serving.base import TextModel
from serving.server import bind, build_server
from tests.conftest import ROOT
from tests.unit.serving.test_model import Predictor

pytestmark = pytest.mark.filterwarnings("ignore::fastapi.exceptions.FastAPIDeprecationWarning")


@pytest.fixture(scope="module")
def model() -> TextModel:
    return TextModel("m", Predictor(), ServingSpec())


@pytest.fixture(scope="module")
def client(model: TextModel) -> Iterator[TestClient]:
    """A client of the whole application; KServe has one a process."""
    build_server(model, 8080, ServingSpec()).create_application()
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def ask(client: TestClient, *texts: str) -> int:
    return int(client.post("/v1/models/m:predict", json={"instances": texts}).status_code)


@pytest.mark.parametrize(
    "path",
    ["models/m/unload", "models/m/load", "index", "models/m/%75nload", ""],
)
def test_no_client_unloads_the_model(path: str, client: TestClient) -> None:
    response = client.post(f"/v2/repository/{path}")
    assert response.status_code == 404
    assert "repository API is closed" in response.json()["error"]
    assert client.get("/v2").json()["extensions"] == []
    assert client.get("/v2/health/ready").status_code == 200
    assert ask(client, "文") == 200


def test_a_server_is_ready_while_its_model_is(client: TestClient, model: TextModel) -> None:
    assert client.get("/v2/health/ready").json() == {"ready": True}
    model.ready = False
    try:
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/health/live").status_code == 200
    finally:
        model.ready = True
    assert client.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize("body", ["[1]", '"x"', "null", "3"])
def test_wrong_v1_bodies_answer_400(body: str, client: TestClient) -> None:
    response = client.post("/v1/models/m:predict", content=body)
    assert response.status_code == 400
    assert 'expected {"instances": [text, …]}' in response.json()["error"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('{"inputs": [{"name": "text", "datatype": "BYTES", "data": ["a"]}]}', "inputs.0.shape: "),
        ('{"inputs": "x"}', "inputs: "),
        ('{"instances": ["secret"]}', "inputs: "),
        ("[]", "the body: "),
        ("{bad", "the body: "),
    ],
)
def test_bodies_that_are_not_of_v2_answer_400_in_one_line(
    body: str, text: str, client: TestClient
) -> None:
    response = client.post(
        "/v2/models/m/infer", content=body, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400
    error = response.json()["error"]
    assert error.startswith(text)
    assert 'expected {"inputs": [{"name": "text"' in error
    assert "secret" not in error


def test_the_family_is_passed_on() -> None:
    assert build_parser().parse_args(["--family", "choose"]).family == "choose"


@pytest.mark.parametrize("value", [None, 1, {"a": 1}, True])
def test_v2_values_that_are_no_texts_answer_400(value: Any, client: TestClient) -> None:
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": [value]}
    response = client.post("/v2/models/m/infer", json={"inputs": [tensor]})
    assert response.status_code == 400
    assert "value 0: expected a text, got" in response.json()["error"]


def test_a_bug_of_ours_answers_500(client: TestClient) -> None:
    assert ask(client, "坏") == 500
    assert 'fsb_serving_requests_total{model="m",status="500"}' in client.get("/metrics").text


def test_two_servers_cannot_have_one_port(free_port: int) -> None:
    with bind("127.0.0.1", free_port):
        with pytest.raises(ConfigError, match=f"serving.port = {free_port}: taken by another"):
            bind("127.0.0.1", free_port)
    bind("127.0.0.1", free_port).close()


def test_a_foreign_address_is_told() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:0"):
        bind("192.0.2.1", 0)


def test_ipv6_addresses_stand_in_brackets() -> None:
    assert inference_url("::1", 80, "m") == "http://[::1]:80/v2/models/m/infer"
    assert inference_url("127.0.0.1", 80, "m") == "http://127.0.0.1:80/v2/models/m/infer"


def test_defaults_are_those_of_the_settings() -> None:
    assert read_limits(build_parser().parse_args([])) == ServingSpec()


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (("--port", "70000"), "port = 70000: Input should be less than or equal to 65535"),
        (("--port", "-1"), "port = -1"),
        (("--max-batch-rows", "0"), "max_batch_rows = 0"),
        (("--request-timeout-seconds", "nan"), "request_timeout_seconds = nan"),
    ],
)
def test_options_out_of_range_are_named(option: tuple[str, str], text: str) -> None:
    arguments = build_parser().parse_args(option)
    with pytest.raises(ConfigError, match=f"options of python -m serving: {text}"):
        read_limits(arguments)


@pytest.mark.parametrize("option", [("--port", "70000"), ("--max-batch-rows", "0")])
def test_wrong_options_end_before_anything_is_loaded(option: tuple[str, str]) -> None:
    command = [sys.executable, "-m", "serving", "--checkpoint", "no-such-model", *option]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ConfigError: options of python -m serving")
    assert done.stderr.count("\n") == 1
