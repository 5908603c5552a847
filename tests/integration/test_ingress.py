"""What the ingress adds, overwrites, refuses and routes."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from project.asyncapi.ingress import MAX_HEADER_BYTES, Ingress
from tests.helpers import serve


def gateway(name: str) -> ASGIApp:
    """Answers with what has reached it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        seen = {
            "gateway": name,
            "path": scope["path"],
            "fields": request.headers.items(),
            "body": (await request.body()).decode(),
        }
        await JSONResponse(seen)(scope, receive, send)

    return app


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An ingress in front of three gateways."""
    names = ("one", "one-more", "deep/er")
    ingress = Ingress({name: gateway(name) for name in names})
    with serve(ingress, lifespan="off", proxy_headers=False) as address:  # as Server does
        yield address


def seen(answer: httpx.Response) -> dict[str, list[str]]:
    """The header that the gateway got, all values of a name together."""
    fields: dict[str, list[str]] = {}
    for name, value in json.loads(answer.content)["fields"]:
        fields.setdefault(name, []).append(value)
    return fields


@pytest.mark.parametrize(
    ("path", "name", "inner"),
    [
        ("/one", "one", "/"),
        ("/one/", "one", "/"),
        ("/one/id", "one", "/id"),
        ("/one?x=1", "one", "/"),
        ("/one-more", "one-more", "/"),
        ("/one-more/a/b", "one-more", "/a/b"),
        ("/deep/er/id", "deep/er", "/id"),
    ],
)
def test_routed(url: str, path: str, name: str, inner: str) -> None:
    """The endpoint, exactly or as a prefix, and it is cut off."""
    answer = httpx.post(url + path, content=b"text").json()

    assert (answer["gateway"], answer["path"], answer["body"]) == (name, inner, "text")


@pytest.mark.parametrize("path", ["", "/", "/onex", "/One", "/deep", "/two/one", "/one%2Fid"])
def test_no_route(url: str, path: str) -> None:
    """Nothing else is known: an empty 404 of the ingress's own."""
    answer = httpx.get(url + path)

    assert (answer.status_code, answer.content) == (404, b"")
    assert "x-envoy-upstream-service-time" not in answer.headers


def test_ids_are_in_order_of_time(url: str) -> None:
    """Each begins with the millisecond it was made in; no two of a millisecond are alike."""
    before = time.time_ns() // 1_000_000
    with httpx.Client() as client:
        made = [seen(client.post(f"{url}/one"))["x-request-id"][0] for _ in range(20)]
    after = time.time_ns() // 1_000_000

    times = [uuid.UUID(each).int >> 80 for each in made]
    assert before <= times[0] <= times[-1] <= after
    assert times == sorted(times)
    for rest in zip(*(each[-12:] for each in made), strict=True):
        assert len(set(rest)) > 4  # of 16 digits, in every place


def test_added(url: str) -> None:
    """What Envoy adds to the request of a client inside the network, and to the answer."""
    answer = httpx.post(f"{url}/one/?input_text=a+b%20c&x=1&x=2", headers={"x-own": "kept"})

    fields = seen(answer)
    assert fields["x-own"] == ["kept"]
    assert fields["x-envoy-original-path"] == ["/one/?input_text=a+b%20c&x=1&x=2"]
    assert fields["x-envoy-attempt-count"] == ["1"]
    assert fields["x-envoy-internal"] == ["true"]
    assert "x-envoy-external-address" not in fields
    assert fields["x-forwarded-for"] == ["127.0.0.1"]
    assert fields["x-forwarded-proto"] == ["http"]
    assert uuid.UUID(fields["x-request-id"][0]).version == 4
    assert fields["x-b3-sampled"] == ["0"]
    assert (len(fields["x-b3-traceid"][0]), len(fields["x-b3-spanid"][0])) == (32, 16)
    assert answer.headers["x-envoy-upstream-service-time"].isdigit()


def test_escaped_path_is_told_as_it_came(url: str) -> None:
    """The original path is the client's bytes."""
    answer = httpx.get(f"{url}/one/%C3%BC%2Fx")

    assert seen(answer)["x-envoy-original-path"] == ["/one/%C3%BC%2Fx"]
    assert answer.json()["path"] == "/ü/x"


def test_internal_client_keeps_its_id(url: str) -> None:
    """An id of a client on a private address is taken, and its trace is continued."""
    fields = seen(
        httpx.post(f"{url}/one", headers={"X-Request-Id": "mine", "X-B3-TraceId": "ab" * 16})
    )

    assert fields["x-request-id"] == ["mine"]
    assert fields["x-b3-traceid"] == ["ab" * 16]
    assert fields["x-b3-spanid"] != ["ab" * 8]


def test_external_client_gets_an_id(url: str) -> None:
    """With X-Forwarded-For a request comes from outside: its id is replaced."""
    sent = {"X-Request-Id": "mine", "X-Forwarded-For": "8.8.8.8", "X-Envoy-Internal": "true"}
    fields = seen(httpx.post(f"{url}/one", headers=sent))

    assert uuid.UUID(fields["x-request-id"][0]).version == 4
    assert fields["x-forwarded-for"] == ["8.8.8.8,127.0.0.1"]
    assert fields["x-envoy-external-address"] == ["8.8.8.8"]
    assert "x-envoy-internal" not in fields


def test_spoofed_fields_are_overwritten(url: str) -> None:
    """What the ingress says, a client cannot say."""
    sent = {
        "X-Envoy-Original-Path": "/one?input_text=forged",
        "X-Envoy-Attempt-Count": "9",
        "X-Envoy-Peer-Metadata": "forged",
        "X-Forwarded-Proto": "https",
    }
    fields = seen(httpx.post(f"{url}/one?input_text=true", headers=sent))

    assert fields["x-envoy-original-path"] == ["/one?input_text=true"]
    assert fields["x-envoy-attempt-count"] == ["1"]
    assert fields["x-forwarded-proto"] == ["http"]
    assert len(fields["x-envoy-peer-metadata"]) == 1
    assert fields["x-envoy-peer-metadata"] != ["forged"]


def test_fields_of_the_connection_end_here(url: str) -> None:
    """They say how this connection is used, not what is asked."""
    fields = seen(httpx.post(f"{url}/one", content=iter([b"a", b"b"]), headers={"x-own": "kept"}))

    assert "x-own" in fields
    assert not {"connection", "transfer-encoding"} & set(fields)


def test_large_header(url: str) -> None:
    """60 KiB, the path included; above it the ingress answers by itself."""
    assert httpx.get(f"{url}/one", headers={"x-own": "x" * 55_000}).status_code == 200

    for answer in (
        httpx.get(f"{url}/one", headers={"x-own": "x" * MAX_HEADER_BYTES}),
        httpx.get(f"{url}/one", headers=[("x-own", "x" * 1000)] * 62),
        httpx.get(f"{url}/none", headers={"x-own": "x" * MAX_HEADER_BYTES}),
    ):
        assert (answer.status_code, answer.text) == (431, "Request Header Fields Too Large")
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["connection"] == "close"
        assert "x-envoy-upstream-service-time" not in answer.headers
