# SPDX-License-Identifier: Apache-2.0
"""Large files to and from S3: in parts, several at once, each byte copied once.

Parts go over the connections of botocore's own session (its proxies, its certificates) to
presigned URLs, straight from the mapped file and straight into the target: boto3's transfer
manager reads, hashes and queues every byte in Python. Called by `pyfsb.storage.s3` only, which
explains errors.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

NUM_CONNECTIONS: Final = 4
"""Parts of one file under way at once; more are not faster on the stores we measured."""
MAX_PARTS: Final = 10_000
_READ_BYTES: Final = 1 << 20
_URL_SECONDS: Final = 3600
_FIRST_PAUSE_SECONDS: Final = 0.2
_RETRIED: Final = frozenset((408, 429, 500, 502, 503, 504))
_S = TypeVar("_S")
_T = TypeVar("_T")
_CODE: Final = re.compile(rb"<Code>([^<]+)</Code>")


class Transfer:
    """Moves files between this machine and one store."""

    def __init__(self, client: S3Client, *, attempts: int, timeout_seconds: int) -> None:
        """Use a client's keys and addressing, and connections of our own.

        Args:
            client: Signs the requests, begins and ends uploads.
            attempts: Times that a part is tried.
            timeout_seconds: Without an answer.
        """
        from botocore.httpsession import URLLib3Session
        from botocore.utils import get_environ_proxies

        self._client = client
        self._attempts = attempts
        bundle: Any = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
        self._session = URLLib3Session(
            proxies=get_environ_proxies(client.meta.endpoint_url),
            verify=bundle or True,
            timeout=timeout_seconds,
            max_pool_connections=NUM_CONNECTIONS,
        )

    def upload(self, path: Path, bucket: str, key: str, part_bytes: int) -> None:
        """Put a file of at least one byte in parts; it appears whole or not at all.

        Args:
            path: The file.
            bucket: Its bucket.
            key: Its key.
            part_bytes: Size of a part, raised where the file would have too many.
        """
        place = {"Bucket": bucket, "Key": key}
        upload_id = self._client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        try:
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
                memoryview(data) as view,
            ):
                num_bytes = len(view)
                size = max(part_bytes, -(-num_bytes // MAX_PARTS))

                def send(start: int) -> dict[str, Any]:
                    number = start // size + 1
                    with view[start : start + size] as part:
                        etag = self._send_part(
                            part, {**place, "UploadId": upload_id, "PartNumber": number}
                        )
                    return {"PartNumber": number, "ETag": etag}

                parts: Any = _in_parallel(send, range(0, num_bytes, size))
            self._client.complete_multipart_upload(
                Bucket=bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}
            )
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
            raise

    def download(self, bucket: str, key: str, file: BinaryIO, part_bytes: int) -> None:
        """Get an object into an empty file, all of it in the version that it has now."""
        found = self._client.head_object(Bucket=bucket, Key=key)
        num_bytes = found["ContentLength"]
        parameters = {"Bucket": bucket, "Key": key}
        if found.get("ETag"):
            parameters["IfMatch"] = found["ETag"]
        os.ftruncate(file.fileno(), num_bytes)

        def fetch(start: int) -> None:
            end = min(start + part_bytes, num_bytes)
            self._fetch_part(parameters, file.fileno(), start, end)

        _in_parallel(fetch, range(0, num_bytes, part_bytes))

    def _send_part(self, part: memoryview, parameters: dict[str, Any]) -> str:
        def send() -> str:
            headers: dict[str, str] = {}
            answer = self._request("PUT", "upload_part", parameters, headers, part, streams=False)
            return str(answer.headers["ETag"])

        return self._with_attempts(send)

    def _fetch_part(
        self, parameters: dict[str, Any], descriptor: int, start: int, end: int
    ) -> None:
        def fetch() -> None:
            asked = {**parameters, "Range": f"bytes={start}-{end - 1}"}
            headers = {"Range": asked["Range"]}
            if "IfMatch" in asked:
                headers["If-Match"] = asked["IfMatch"]
            answer = self._request("GET", "get_object", asked, headers, None, streams=True)
            with contextlib.closing(answer.raw):
                _receive(answer.raw, descriptor, start, end)

        self._with_attempts(fetch)

    def _request(
        self,
        method: str,
        operation: str,
        parameters: dict[str, Any],
        headers: dict[str, str],
        body: memoryview | None,
        *,
        streams: bool,
    ) -> Any:
        from botocore.awsrequest import AWSPreparedRequest, HeadersDict
        from botocore.exceptions import ClientError

        url = self._client.generate_presigned_url(
            operation, Params=parameters, ExpiresIn=_URL_SECONDS
        )
        request: Any = AWSPreparedRequest  # its stubs know neither views nor its own headers
        answer = self._session.send(request(method, url, HeadersDict(headers), body, streams))
        if answer.status_code not in (200, 206):
            code = _CODE.search(answer.content)
            response: Any = {
                "Error": {"Code": code[1].decode() if code else str(answer.status_code)},
                "ResponseMetadata": {"HTTPStatusCode": answer.status_code},
            }
            raise ClientError(response, operation)
        return answer

    def _with_attempts(self, action: Callable[[], _T]) -> _T:
        from botocore.exceptions import BotoCoreError, ClientError

        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(1, self._attempts + 1):
            try:
                return action()
            except ClientError as exc:
                status = exc.response["ResponseMetadata"]["HTTPStatusCode"]
                if status not in _RETRIED or attempt == self._attempts:
                    raise
            except BotoCoreError:
                if attempt == self._attempts:
                    raise
            time.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable: the last attempt returns or raises")


def _receive(raw: Any, descriptor: int, start: int, end: int) -> None:
    """Write what a range request answers to its place in a file.

    Some stores answer a range with status 200, so its length tells whether it is the range.
    """
    from botocore.exceptions import HTTPClientError
    from urllib3.exceptions import HTTPError

    length = raw.headers.get("Content-Length")
    if length is not None and int(length) != end - start:
        raise HTTPClientError(error=f"{length} bytes for a range of {end - start}")
    try:
        while start < end:
            data = raw.read(min(_READ_BYTES, end - start))
            if not data:
                raise HTTPClientError(error=f"the answer broke off {end - start} bytes early")
            os.pwrite(descriptor, data, start)
            start += len(data)
    except (HTTPError, ConnectionError, TimeoutError) as exc:
        raise HTTPClientError(error=exc) from None


def _in_parallel(action: Callable[[_S], _T], items: Iterable[_S]) -> list[_T]:
    """Return what an action gives for each item; after the first error nothing new begins."""
    with ThreadPoolExecutor(NUM_CONNECTIONS) as pool:
        futures = [pool.submit(action, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
