from __future__ import annotations

import pytest

from pyfsb import errors


def _tree(kind: type[errors.FsbError]) -> list[type[errors.FsbError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _tree(child))]


@pytest.mark.parametrize(
    ("kind", "exit_code", "status", "is_retryable"),
    [
        (errors.ConfigError, 2, 400, False),
        (errors.UnknownNameError, 2, 404, False),
        (errors.DataError, 3, 500, False),
        (errors.CheckpointError, 3, 500, False),
        (errors.GateError, 3, 500, False),
        (errors.StorageError, 75, 503, True),
        (errors.ClusterError, 75, 503, True),
        (errors.NotReadyError, 75, 503, True),
    ],
)
def test_each_class_has_its_code(
    kind: type[errors.FsbError], exit_code: int, status: int, is_retryable: bool
) -> None:
    assert (kind.exit_code, kind.http_status, kind.is_retryable) == (
        exit_code, status, is_retryable,
    )  # fmt: skip


def test_the_module_draws_every_class() -> None:
    own = [kind for kind in _tree(errors.FsbError) if kind.__module__ == errors.__name__]
    for kind in own:
        assert kind.__name__ in (errors.__doc__ or "")


def test_unknown_name_suggests_the_nearest() -> None:
    error = errors.UnknownNameError("model", "Erlangshn", ["Erlangshen", "Wenzhong"])
    assert str(error) == "unknown model 'Erlangshn'; did you mean 'Erlangshen'?"


def test_unknown_name_without_neighbours_has_no_suggestion() -> None:
    assert str(errors.UnknownNameError("task", "qqqq", ["tnews"])) == "unknown task 'qqqq'"


def test_names_are_compared_without_case() -> None:
    assert errors.nearest_names("TNEWS", ["tnews", "ocnli"]) == ["tnews"]
