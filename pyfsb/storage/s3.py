# SPDX-License-Identifier: Apache-2.0
"""Files in an S3 object store; the only place that imports boto3.

Endpoint, region and keys come from the environment as boto3 reads it (`AWS_ENDPOINT_URL_S3`,
`AWS_REGION`, `AWS_ACCESS_KEY_ID` …); `FSB_S3_ADDRESSING` (path, virtual or auto),
`FSB_S3_ATTEMPTS` and `FSB_S3_TIMEOUT_SECONDS` tune it. Called through `pyfsb.storage` only.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyfsb.errors import ConfigError, DataError, StorageError
from pyfsb.storage.backends import StoredFile, replacing
from pyfsb.storage.transfer import Transfer
from pyfsb.storage.uris import split_s3

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PART_BYTES = 16 * 2**20
"""Files larger than this go up in parts; S3 allows 10,000 of them."""
_MISSING = ("404", "NoSuchKey", "NotFound")
_REFUSED = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")
_USER_INFO = re.compile(r"(?:(?<=://)|^)[^/@\s]+@")


class S3Backend:
    """One client for the process, made at first use; threads may share it."""

    def __init__(self) -> None:
        """Keep the client unmade, so that naming an URI costs nothing."""
        self._lock = threading.Lock()
        self._client: S3Client | None = None
        self._transfer: Transfer | None = None

    def read(self, uri: str) -> bytes:
        """Return an object's bytes; an answer that breaks off is asked for again."""
        from botocore.exceptions import HTTPClientError

        bucket, key = split_s3(uri)
        with _explained(uri, "read"):
            for _ in range(_positive_number("FSB_S3_ATTEMPTS", 5) - 1):
                with contextlib.suppress(HTTPClientError):
                    return self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
            return self.client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def write(self, uri: str, data: bytes) -> None:
        """Put an object; S3 shows it whole or not at all."""
        bucket, key = split_s3(uri)
        with _explained(uri, "write"):
            self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def write_if_absent(self, uri: str, data: bytes) -> bool:
        """Put an object with `If-None-Match: *`; return whether it was put.

        Some servers ignore the condition; `pyfsb.storage.locks` probes for that.
        """
        bucket, key = split_s3(uri)
        try:
            with _explained(uri, "write"):
                self.client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except _ConditionFailedError:
            return False
        return True

    def read_versioned(self, uri: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and its ETag, or None when it is not there."""
        bucket, key = split_s3(uri)
        try:
            with _explained(uri, "read"):
                found = self.client.get_object(Bucket=bucket, Key=key)
                return found["Body"].read(), found["ETag"]
        except MissingObjectError:
            return None

    def write_if_unchanged(self, uri: str, data: bytes, version: str | None) -> bool:
        """Put an object with `If-Match: ETag` (None: `If-None-Match: *`).

        Source: Amazon S3, conditional writes: 412 when the condition fails, 404 when `If-Match`
        finds nothing, 409 when another conditional write is under way.
        """
        bucket, key = split_s3(uri)
        try:
            with _explained(uri, "write"):
                if version is None:
                    self.client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
                else:
                    self.client.put_object(Bucket=bucket, Key=key, Body=data, IfMatch=version)
        except (_ConditionFailedError, MissingObjectError, _ConflictError):
            return False
        return True

    def exists(self, uri: str) -> bool:
        """Say whether an object is there."""
        bucket, key = split_s3(uri)
        try:
            with _explained(uri, "look for"):
                self.client.head_object(Bucket=bucket, Key=key)
        except DataError:
            return False
        return True

    def size(self, uri: str) -> int:
        """Return an object's size in bytes."""
        bucket, key = split_s3(uri)
        with _explained(uri, "look for"):
            return self.client.head_object(Bucket=bucket, Key=key)["ContentLength"]

    def version(self, uri: str) -> str:
        """Return an object's ETag, or the time of its last change where the store has none."""
        bucket, key = split_s3(uri)
        with _explained(uri, "look for"):
            found = self.client.head_object(Bucket=bucket, Key=key)
        return found.get("ETag") or found["LastModified"].isoformat()

    def list_files(self, uri: str) -> list[StoredFile]:
        """Return every object below a prefix, sorted by path."""
        bucket, key = split_s3(uri)
        prefix = f"{key}/" if key else ""
        with _explained(uri, "list"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix
            )
            found = [entry for page in pages for entry in page.get("Contents", [])]
        files = [
            StoredFile(
                path=entry["Key"].removeprefix(prefix),
                num_bytes=entry["Size"],
                version=entry.get("ETag") or entry["LastModified"].isoformat(),
            )
            for entry in found
            if entry["Key"] != prefix
        ]
        return sorted(files, key=lambda file: file.path)

    def delete(self, uri: str) -> None:
        """Remove an object; nothing happens when it is not there."""
        bucket, key = split_s3(uri)
        with _explained(uri, "delete"):
            self.client.delete_object(Bucket=bucket, Key=key)

    def upload(self, path: Path, uri: str) -> None:
        """Put a local file, in parts when it is large."""
        bucket, key = split_s3(uri)
        with _explained(uri, "write"):
            if path.stat().st_size > PART_BYTES:
                self.transfer.upload(path, bucket, key, PART_BYTES)
            else:
                with path.open("rb") as file:
                    self.client.put_object(Bucket=bucket, Key=key, Body=file)

    def download(self, uri: str, path: Path) -> None:
        """Get an object into a local file, whole or not at all; in ranges when it is large."""
        bucket, key = split_s3(uri)
        with replacing(path) as file, _explained(uri, "read"):
            self.transfer.download(bucket, key, file, PART_BYTES)

    @property
    def client(self) -> S3Client:
        """The boto3 client, made from the environment at first use."""
        with self._lock:
            if self._client is None:
                self._client = _make_client()
            return self._client

    @property
    def transfer(self) -> Transfer:
        """What moves large files, made at first use."""
        client = self.client
        with self._lock:
            if self._transfer is None:
                self._transfer = Transfer(
                    client,
                    attempts=_positive_number("FSB_S3_ATTEMPTS", 5),
                    timeout_seconds=_positive_number("FSB_S3_TIMEOUT_SECONDS", 20),
                )
            return self._transfer


class _ConditionFailedError(Exception):
    """A conditional put found the object there."""


class _ConflictError(StorageError):
    """Another conditional put of the same object is under way."""


class MissingObjectError(DataError):
    """The bucket is there, the object is not."""


def _make_client() -> S3Client:
    import boto3
    from botocore.config import Config

    addressing = os.environ.get("FSB_S3_ADDRESSING", "auto")
    if addressing not in ("auto", "path", "virtual"):
        raise ConfigError(f"FSB_S3_ADDRESSING={addressing!r}; expected auto, path or virtual")
    attempts = _positive_number("FSB_S3_ATTEMPTS", 5)
    timeout_seconds = _positive_number("FSB_S3_TIMEOUT_SECONDS", 20)
    config = Config(
        retries={"total_max_attempts": attempts, "mode": "standard"},
        connect_timeout=timeout_seconds,
        read_timeout=timeout_seconds,
        signature_version="s3v4",  # presigned URLs are of the old kind otherwise
        s3={"addressing_style": addressing},  # type: ignore[arg-type]
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent_extra="fengshenbang",
    )
    endpoint = _endpoint()
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise ConfigError(
            f"AWS_ENDPOINT_URL_S3={_without_secrets(endpoint)!r}; expected http://host:port or "
            "https://host"
        )
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    # A session of our own reads the environment now; the default one keeps what it read first.
    return boto3.session.Session().client("s3", config=config, region_name=region)


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _without_secrets(text: object) -> str:
    """Return a text without the user names and passwords of URLs in it."""
    return _USER_INFO.sub("", str(text))


def _positive_number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"{name}={text!r}; expected a whole number of at least 1")
    return int(text)


@contextlib.contextmanager
def _explained(uri: str, action: str) -> Iterator[None]:
    """Turn boto3's errors into ours; no key or token is ever part of the text."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        ParamValidationError,
    )

    try:
        yield
    except ClientError as exc:
        raise _client_error(exc, uri, action) from None
    except (ParamValidationError, ValueError) as exc:
        raise ConfigError(f"cannot {action} {uri}: {_without_secrets(exc)}") from None
    except NoCredentialsError:
        raise ConfigError(
            f"cannot {action} {uri}: no S3 keys in the environment; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give the pod a role"
        ) from None
    except (BotoCoreError, Boto3Error) as exc:
        if isinstance(exc.__context__, ClientError):  # a transfer wraps what the store answered
            raise _client_error(exc.__context__, uri, action) from None
        attempts = _positive_number("FSB_S3_ATTEMPTS", 5)
        endpoint = _endpoint() or "the default of the region"
        raise StorageError(
            f"cannot {action} {uri} after {attempts} attempts: {_without_secrets(exc)}; the "
            f"endpoint in use is {_without_secrets(endpoint)} (AWS_ENDPOINT_URL_S3)"
        ) from None


def _client_error(exc: Any, uri: str, action: str) -> Exception:
    code = str(exc.response.get("Error", {}).get("Code", ""))
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code == "NoSuchBucket":
        return DataError(f"cannot {action} {uri}: there is no bucket {split_s3(uri)[0]!r}")
    if code in _MISSING:
        return MissingObjectError(f"cannot {action} {uri}: no such object")
    if code in ("PreconditionFailed", "412") or status == 412:
        return _ConditionFailedError()
    if code == "ConditionalRequestConflict":
        return _ConflictError(f"cannot {action} {uri}: another writer is at it")
    if code in _REFUSED:
        return ConfigError(f"cannot {action} {uri}: the store refuses these keys ({code})")
    return StorageError(f"cannot {action} {uri}: the store answered {code or status}")
