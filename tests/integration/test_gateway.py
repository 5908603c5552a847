"""The gateway over HTTP: routes, statuses and bodies of Cortex's async-gateway."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from project.asyncapi.endpoint import Gateway
from project.asyncapi.ingress import Ingress
from project.asyncapi.queue import RequestQueue
from project.asyncapi.service import Service
from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.types import Depth
from project.asyncapi.waiting import Signal
from tests.helpers import DEADLINE, serve


@pytest.fixture
def storage(tmp_path: Path) -> SQLiteStorage:
    """What is behind the gateway; the gateway's queue closes it."""
    return SQLiteStorage(tmp_path / "queue.sqlite3")


MAX_PAYLOAD = 1000
MAX_LENGTH = 5


@pytest.fixture
def url(storage: SQLiteStorage) -> Iterator[str]:
    """A gateway's endpoint behind the ingress; no dequeuer runs."""
    queue = RequestQueue(storage, Signal(), MAX_LENGTH)
    with serve(Ingress({"sentiment": Gateway(Service(queue, MAX_PAYLOAD))})) as url:
        yield f"{url}/sentiment"
    storage.close()


def end(storage: SQLiteStorage, result: bytes | None) -> None:
    """End the oldest request: with a result, or as failed."""
    (delivery,) = storage.receive(1, DEADLINE)
    if result is None:
        storage.fail(delivery, "reason")
    else:
        storage.complete(delivery, result)


@pytest.mark.parametrize("slash", ["", "/"])
def test_submit(url: str, slash: str) -> None:
    """200 with an id, whatever is sent; nothing is validated here."""
    response = httpx.post(url + slash, content=b"\xff not json")

    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    request_id = response.json()["id"]
    assert str(uuid.UUID(request_id)) == request_id
    assert response.text == f'{{"id":"{request_id}"}}\n'


def test_stored_as_sent(url: str, storage: SQLiteStorage) -> None:
    """Body and headers are stored; what belongs to the connection is not, ids are the service's."""
    response = httpx.post(
        f"{url}?input_text=a+b%2Bc&x=1&x=2",
        content=b"\x00\xff",
        headers=[
            ("Content-Type", "text/x"),
            ("X-Twice", "1"),
            ("X-Twice", "2"),
            ("X-Cortex-Request-ID", "mine"),
            ("X-Envoy-Original-Path", "mine"),
        ],
    )

    (delivery,) = storage.receive(1, DEADLINE)
    assert delivery.request.body == b"\x00\xff"
    names = {name.lower() for name, _ in delivery.request.headers}
    assert not names & {"host", "connection", "content-length", "x-cortex-request-id"}
    assert [value for name, value in delivery.request.headers if name.lower() == "x-twice"] == [
        "1",
        "2",
    ]
    assert list(delivery.request.headers) == sorted(delivery.request.headers)
    assert set(delivery.request.headers) >= {
        ("X-Request-Id", response.json()["id"]),
        ("X-Envoy-Original-Path", "/sentiment?input_text=a+b%2Bc&x=1&x=2"),
    }


def test_poll_before_the_end(url: str, storage: SQLiteStorage) -> None:
    """in_queue, then in_progress: an object of two fields on a line."""
    request_id = httpx.post(url).json()["id"]
    queued = httpx.get(f"{url}/{request_id}?ignored=1")
    (delivery,) = storage.receive(1, DEADLINE)
    storage.begin(delivery)
    in_progress = httpx.get(f"{url}/{request_id}")

    assert queued.text == f'{{"id":"{request_id}","status":"in_queue"}}\n'
    assert in_progress.text == f'{{"id":"{request_id}","status":"in_progress"}}\n'


def test_poll_completed(url: str, storage: SQLiteStorage) -> None:
    """The result and a timestamp in whole seconds of UTC."""
    request_id = httpx.post(url).json()["id"]
    end(storage, '{"b":"ü"}'.encode())

    response = httpx.get(f"{url}/{request_id}")

    answer = response.json()
    timestamp = answer["timestamp"]
    assert len(timestamp) == len("2026-11-22T19:33:22Z")
    assert timestamp.endswith("Z")
    assert response.text == (
        f'{{"id":"{request_id}","status":"completed","result":{{"b":"ü"}},"timestamp":"{timestamp}"}}\n'
    )


def test_poll_failed(url: str, storage: SQLiteStorage) -> None:
    """A failure has no reason, no result and no timestamp, and its status is 200."""
    request_id = httpx.post(url).json()["id"]
    end(storage, None)

    response = httpx.get(f"{url}/{request_id}")

    assert response.status_code == 200
    assert response.text == f'{{"id":"{request_id}","status":"failed"}}\n'


@pytest.mark.parametrize(
    ("result", "kind"),
    [("[1]", "array"), ('"a"', "string"), ("1.5", "number"), ("true", "bool")],
)
def test_poll_of_no_object(url: str, storage: SQLiteStorage, result: str, kind: str) -> None:
    """A result that is no object cannot be read, on a cluster or here."""
    request_id = httpx.post(url).json()["id"]
    end(storage, result.encode())

    response = httpx.get(f"{url}/{request_id}")

    assert (response.status_code, response.headers["content-type"]) == (500, "text/plain")
    assert response.text == (
        f"error: json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
    )


def test_poll_of_null(url: str, storage: SQLiteStorage) -> None:
    """A null is the one value besides an object that can be read."""
    request_id = httpx.post(url).json()["id"]
    end(storage, b"null")

    assert httpx.get(f"{url}/{request_id}").json()["result"] is None


@pytest.mark.parametrize("name", ["unknown-id", "docs", "openapi.json", "%C3%BC"])
def test_unknown_id(url: str, name: str) -> None:
    """404 with the id, and no page of the container's."""
    response = httpx.get(f"{url}/{name}")

    assert (response.status_code, response.headers["content-type"]) == (404, "text/plain")
    assert (
        response.content.decode() == f"error: id {httpx.URL(f'{url}/{name}').path[11:]} not found"
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/"),
        ("PUT", ""),
        ("DELETE", "/"),
        ("HEAD", "/some-id"),
        ("POST", "/some-id"),
    ],
)
def test_wrong_method(url: str, method: str, path: str) -> None:
    """405 without a body or an Allow header."""
    response = httpx.request(method, url + path)

    assert (response.status_code, response.content) == (405, b"")
    assert "allow" not in response.headers


@pytest.mark.parametrize("path", ["/id/", "/id/x", "/a%2Fb"])
def test_too_many_segments(url: str, path: str) -> None:
    """What Go's router says."""
    response = httpx.get(url + path)

    assert (response.status_code, response.text) == (404, "404 page not found\n")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("path", ["x", "/../other"])
def test_outside_the_endpoint(url: str, path: str) -> None:
    """404 with an empty body."""
    response = httpx.get(url + path)

    assert (response.status_code, response.content) == (404, b"")


def test_gateway_health(url: str) -> None:
    """The path healthz is the gateway's own."""
    response = httpx.get(f"{url}/healthz")

    assert (response.status_code, response.text) == (200, "ok")


def test_storage_error_is_500(url: str, storage: SQLiteStorage) -> None:
    """What cannot be stored is not accepted."""
    storage._writer.close()

    response = httpx.post(url, content=b"a")

    assert (response.status_code, response.headers["content-type"]) == (500, "text/plain")
    assert response.text.startswith("error: failed to send message to queue: ")


def test_storage_error_of_a_poll(url: str, storage: SQLiteStorage) -> None:
    """Only a submission has something to send to the queue."""
    storage._reader.close()

    response = httpx.get(f"{url}/some-id")

    assert (response.status_code, response.headers["content-type"]) == (500, "text/plain")
    assert response.text == "error: Cannot operate on a closed database."


async def in_pieces() -> AsyncIterator[bytes]:
    """A body whose length nobody says beforehand."""
    for _ in range(11):
        yield b"x" * (MAX_PAYLOAD // 10)


@pytest.mark.parametrize("chunked", [True, False])
def test_payload_too_large(url: str, storage: SQLiteStorage, chunked: bool) -> None:
    """413 with the limit, whether the length is said or counted."""

    async def post() -> httpx.Response:
        async with httpx.AsyncClient() as client:
            content = in_pieces() if chunked else b"x" * (MAX_PAYLOAD + 1)
            return await client.post(url, content=content)

    response = asyncio.run(post())

    assert response.status_code == 413
    assert response.text == f"error: the payload is larger than {MAX_PAYLOAD} bytes"
    assert storage.depth() == Depth(0, 0)
    assert httpx.post(url, content=b"x" * MAX_PAYLOAD).status_code == 200


def test_queue_full(url: str) -> None:
    """503 with Retry-After once as many wait as may; what was accepted stays."""
    ids = [httpx.post(url).json()["id"] for _ in range(MAX_LENGTH)]

    response = httpx.post(url)

    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert response.text == f"error: the queue holds {MAX_LENGTH} requests, as many as it may"
    assert {httpx.get(f"{url}/{name}").json()["status"] for name in ids} == {"in_queue"}


def test_disk_full(url: str, storage: SQLiteStorage) -> None:
    """507 for new work when the disk has no room; what was accepted can still end."""
    request_id = httpx.post(url).json()["id"]
    storage._min_free_bytes = 1 << 60

    response = httpx.post(url)

    assert (response.status_code, response.headers["retry-after"]) == (507, "5")
    assert "bytes are free" in response.text
    end(storage, b"{}")
    assert httpx.get(f"{url}/{request_id}").json()["status"] == "completed"


def test_own_id_again(url: str, storage: SQLiteStorage) -> None:
    """A client that names its request can repeat it: the same body and query are one request."""
    own = {"X-Request-Id": "mine"}

    answers = [
        httpx.post(url + query, headers=own, content=body)
        for query, body in (("?q=a", b"a"), ("?q=a", b"a"), ("?q=a", b"b"), ("?q=b", b"a"))
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 409, 409]
    assert answers[1].text == '{"id":"mine"}\n'
    for answer in answers[2:]:
        assert answer.text == (
            "error: id mine was submitted before, with another body, content type or query"
        )
    assert storage.depth() == Depth(1, 0)


def test_id_past_the_ingress(storage: SQLiteStorage) -> None:
    """Without the ingress nobody has given the request its id."""
    queue = RequestQueue(storage, Signal(), MAX_LENGTH)
    with serve(Gateway(Service(queue, MAX_PAYLOAD))) as url:
        response = httpx.post(url)

    assert response.status_code == 400
    assert response.text == "error: missing x-request-id key in request header"
    storage.close()


def test_caller_that_leaves_is_still_stored(tmp_path: Path) -> None:
    """A cancelled submission is stored all the same, and the dequeuer hears of it."""

    async def run() -> None:
        changed = Signal()
        queue = RequestQueue(SQLiteStorage(tmp_path / "queue.sqlite3"), changed, MAX_LENGTH)
        service = Service(queue, MAX_PAYLOAD)
        woken = changed.listen()
        submitting = asyncio.create_task(service.create_workload("a", (), b""))
        await asyncio.sleep(0)
        submitting.cancel()
        await asyncio.wait({submitting})
        await asyncio.wait_for(woken.wait(), DEADLINE)
        assert len(await queue.receive(10, DEADLINE)) == 1
        await queue.close()

    asyncio.run(run())


def test_headers_survive_storage(url: str, storage: SQLiteStorage) -> None:
    """Header values are UTF-8; other bytes become U+FFFD, as in Cortex's JSON."""
    httpx.post(url, headers=[(b"X-Name", "Zoë".encode()), (b"X-Old", "Zoë".encode("latin-1"))])

    (delivery,) = storage.receive(1, DEADLINE)
    assert {("X-Name", "Zoë"), ("X-Old", "Zo\ufffd")} <= set(delivery.request.headers)
    assert json.dumps(delivery.request.headers)
