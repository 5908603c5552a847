"""Contract, section 2: what the container receives."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
import uuid
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .client import DEADLINE, Answer, Api, Outcome, Received, Submission, wait_until

CAPTURED = {path.stem: path for path in (Path(__file__).parent / "captured").glob("*.txt")}
BIG = "13-big-expect.head"  # only its head was kept
REPLAYED = sorted(set(CAPTURED) - {BIG})

HEX16 = "[0-9a-f]{16}"
INGRESS = {
    "X-B3-Sampled": "[01]",
    "X-B3-Spanid": HEX16,
    "X-B3-Traceid": f"{HEX16}{HEX16}",
    "X-Envoy-Attempt-Count": "1",
    "X-Envoy-Internal": "true",
    "X-Envoy-Peer-Metadata": "[A-Za-z0-9+/]{8,}={0,2}",
    "X-Envoy-Peer-Metadata-Id": r"router~\S+",
    "X-Forwarded-For": "[0-9a-f.:]+(, ?[0-9a-f.:]+)*",
    "X-Forwarded-Proto": "https?",
}
"""What the ingress adds, and what its value looks like; see also ``OF_PATH``."""

OF_PATH = {"X-Envoy-Decorator-Operation", "X-Envoy-Original-Path"}
IDS = {"X-Cortex-Request-Id", "X-Request-Id"}
ADDED = {*INGRESS, *OF_PATH, *IDS, "Host", "Content-Length", "Transfer-Encoding"}
GO_FIRST = ["host", "user-agent", "content-length", "transfer-encoding"]
"""Go's client writes these before all others; ``Accept-Encoding``, if it adds it, after them."""

LONG = "x" * 55 * 1024


def captured(name: str) -> Received:
    """What a container on a cluster got."""
    return Received.parse(CAPTURED[name].read_bytes())


def resent(name: str) -> Submission:
    """The client's request that a captured one came from.

    An ``Accept-Encoding`` at the end is Go's, one in alphabetical order the client's.
    """
    request = captured(name)
    theirs = request.headers
    if theirs[-1][0] == "Accept-Encoding":
        theirs = theirs[:-1]
    suffix = request.values("X-Envoy-Original-Path")[0].removeprefix("/sentiment")
    body = None if name == "9-no-body" else request.body
    return Submission(
        headers=tuple(each for each in theirs if each[0] not in ADDED),
        body=body,
        suffix=suffix,
        chunked=name == "12-chunked",
    )


AGENT = ("User-Agent", "conformance")
SCRAMBLED = (
    ("x-zebra", "1"),
    ("X-ALL-CAPS", "2"),
    ("x-multi", "first"),
    AGENT,
    ("authorization", "Bearer s3cret"),
    ("X-mULTI", "second"),
    ("accept", "*/*"),
    ("x-apple", "3"),
)
SUBMISSIONS = {
    **{name: resent(name) for name in REPLAYED},
    "scrambled": Submission(headers=SCRAMBLED),
    "spoofed": Submission(
        headers=(
            ("X-Cortex-API-Name", "another"),
            ("X-Cortex-Queue-URL", "http://192.0.2.1/queue"),
            ("X-Cortex-Request-ID", "chosen"),
            ("X-Envoy-Original-Path", "/spoofed?input_text=spoofed"),
        )
    ),
    "spoofed-query": Submission(
        headers=(("X-Envoy-Original-Path", "/spoofed?input_text=spoofed"),),
        suffix="?input_text=real",
    ),
    "connection": Submission(headers=(("Connection", "keep-alive"),)),
    "long-query": Submission(suffix=f"?input_text={LONG}"),
    "every-byte": Submission(
        headers=(("Content-Type", "application/octet-stream"),), body=bytes(range(256)) * 16
    ),
    "large": Submission(body=b'{"input_text": "' + b"a " * 2_000_000 + b'"}'),
    "range": Submission(headers=(("Range", "bytes=0-3"),)),
}


@pytest.fixture(scope="module")
def outcomes(api: Api) -> dict[str, Outcome]:
    """Of all submissions, sent at once."""
    return api.run_all(SUBMISSIONS)


def normal(request: Received, path: str, *, ingress: bool) -> list[tuple[str, str]]:
    """The headers of a request, with what differs from one to the next named instead.

    What does not look as it must stays as it is. A client from outside is told apart by
    ``X-Envoy-External-Address``, which then stands in for ``X-Envoy-Internal``.
    """
    named = []
    for name, value in request.headers:
        if not ingress and name in INGRESS.keys() | OF_PATH:
            continue
        if name == "X-Envoy-External-Address":
            name, value = "X-Envoy-Internal", "true"
        if name in INGRESS and re.fullmatch(INGRESS[name], value):
            value = INGRESS[name]
        elif name in IDS:
            value = "id"
        elif name == "Host":
            value = re.sub(r":\d+$", ":port", value)
        elif name in OF_PATH:
            value = value.replace(path, "/<endpoint>", 1)
        named.append((name, value))
    return named


@pytest.mark.parametrize("name", REPLAYED)
def test_captured(
    name: str, outcomes: Mapping[str, Outcome], api: Api, behind_ingress: bool
) -> None:
    """Section 2, the captured bytes and the table of cases: line, headers in order, and body.

    The size of the chunks is left to the implementation; ids, ports, addresses, trace and peer
    metadata are compared by what they look like.
    """
    expected, received = captured(name), outcomes[name].received

    assert received.line == expected.line
    assert normal(received, api.path, ingress=behind_ingress) == normal(
        expected, "/sentiment", ingress=behind_ingress
    )
    assert received.body == expected.body


def test_request_line(outcomes: Mapping[str, Outcome]) -> None:
    """Section 2: always ``POST / HTTP/1.1``, with the container's own address as the Host."""
    lines = {outcome.received.line for outcome in outcomes.values()}
    hosts = {tuple(outcome.received.values("Host")) for outcome in outcomes.values()}

    assert lines == {"POST / HTTP/1.1"}
    assert len(hosts) == 1
    assert re.fullmatch(r"127\.0\.0\.1:\d+", hosts.pop()[0])


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_framing(name: str, outcomes: Mapping[str, Outcome]) -> None:
    """Section 2, body and framing: chunked, or ``Content-Length: 0``, and never anything else."""
    received = outcomes[name].received
    framing = [
        each for each in received.headers if each[0] in {"Content-Length", "Transfer-Encoding"}
    ]

    body = SUBMISSIONS[name].body
    assert framing == [("Transfer-Encoding", "chunked") if body else ("Content-Length", "0")]
    assert received.told["sha256"] == hashlib.sha256(body or b"").hexdigest()


def test_large_body_in_many_chunks(outcomes: Mapping[str, Outcome]) -> None:
    """Section 2, body and framing: a 4 MB body arrives in many chunks."""
    told = outcomes["large"].received.told

    assert told["length"] == 4_000_018
    assert told["chunks"] > 10


def test_every_byte(outcomes: Mapping[str, Outcome]) -> None:
    """Section 2, body and framing: byte for byte, whatever the type."""
    received = outcomes["every-byte"].received

    assert received.body == bytes(range(256)) * 16
    assert received.values("Content-Type") == ["application/octet-stream"]


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_order_of_headers(name: str, outcomes: Mapping[str, Outcome]) -> None:
    """Section 2, headers: grouped and sorted, after Go's own first ones, before its last one."""
    received = outcomes[name].received
    sent = {key.lower() for key, _ in SUBMISSIONS[name].headers}
    names = received.names

    first = [each for each in names if each in GO_FIRST]
    last = [] if sent & {"accept-encoding", "range"} else ["accept-encoding"]
    middle = names[len(first) : len(names) - len(last)]
    assert names[len(names) - len(last) :] == last
    assert names[: len(first)] == [each for each in GO_FIRST if each in first]
    assert middle == sorted(middle)


def test_canonical_names(outcomes: Mapping[str, Outcome]) -> None:
    """Section 2, headers: names in Go's canonical case, however the client wrote them."""
    names = [name for name, _ in outcomes["scrambled"].received.headers]

    assert names == ["-".join(map(str.capitalize, name.split("-"))) for name in names]
    assert {"X-Zebra", "X-All-Caps", "X-Apple", "X-Multi", "Authorization", "Accept"} <= set(names)


def test_repeated_headers(outcomes: Mapping[str, Outcome]) -> None:
    """Section 2, headers: repeated ones pass, grouped, in their order."""
    assert outcomes["scrambled"].received.values("X-Multi") == ["first", "second"]


def test_connection_is_not_passed(outcomes: Mapping[str, Outcome], api: Api) -> None:
    """Section 2, headers: what is of the client's own connection ends there."""
    received = outcomes["connection"].received

    assert "connection" not in received.names
    assert received.names.count("host") == 1
    assert api.address.netloc not in received.values("Host")


@pytest.mark.parametrize("name", ["x-cortex-api-name", "x-cortex-queue-url"])
def test_cortex_headers_are_removed(name: str, outcomes: Mapping[str, Outcome]) -> None:
    """Section 2, headers: neither the gateway's own nor a client's reach the container."""
    assert name not in outcomes["spoofed"].received.names


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_request_id(name: str, outcomes: Mapping[str, Outcome]) -> None:
    """Section 2, headers: both id headers are the id the client got, whatever it sent itself."""
    outcome = outcomes[name]

    assert outcome.received.values("X-Cortex-Request-Id") == [outcome.id]
    assert outcome.received.values("X-Request-Id") == [outcome.id]
    assert str(uuid.UUID(outcome.id)) == outcome.id


@pytest.mark.ingress
@pytest.mark.parametrize(
    ("name", "suffix"), [("spoofed", ""), ("spoofed-query", "?input_text=real")]
)
def test_original_path_is_overwritten(
    name: str, suffix: str, outcomes: Mapping[str, Outcome], api: Api
) -> None:
    """Section 2, the query string: Envoy overwrites a client's X-Envoy-Original-Path.

    Measured with a query, read in the source without one.
    """
    assert outcomes[name].received.values("X-Envoy-Original-Path") == [api.path + suffix]


@pytest.mark.ingress
def test_long_query(outcomes: Mapping[str, Outcome], api: Api) -> None:
    """Section 2, the query string: 55 KiB of it arrive."""
    received = outcomes["long-query"].received

    assert received.values("X-Envoy-Original-Path") == [f"{api.path}?input_text={LONG}"]


@pytest.mark.ingress
@pytest.mark.parametrize("name", INGRESS)
def test_added_by_the_ingress(name: str, outcomes: Mapping[str, Outcome]) -> None:
    """Section 2, the exact bytes: one of each, on every request.

    To a client from outside Envoy adds X-Envoy-External-Address instead of X-Envoy-Internal.
    """
    for outcome in outcomes.values():
        received = outcome.received
        if name == "X-Envoy-Internal" and received.values("X-Envoy-External-Address"):
            continue
        values = received.values(name)
        assert len(values) == 1
        assert re.fullmatch(INGRESS[name], values[0])


@pytest.mark.ingress
@pytest.mark.parametrize(("name", "route"), [("spoofed-query", ""), ("8-slash-query", "/*")])
def test_decorator_operation(
    name: str, route: str, outcomes: Mapping[str, Outcome], api: Api
) -> None:
    """Section 2, the exact bytes (1 and 8): names the service and the route that matched."""
    assert outcomes[name].received.values("X-Envoy-Decorator-Operation") == [
        f"async-gateway.default.svc.cluster.local:8888{api.path}{route}"
    ]


@pytest.mark.ingress
def test_traces_differ(outcomes: Mapping[str, Outcome]) -> None:
    """Section 2, the exact bytes: every request has a trace of its own."""
    traces = {tuple(outcome.received.values("X-B3-Traceid")) for outcome in outcomes.values()}

    assert len(traces) == len(outcomes)


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_accept_encoding(name: str, outcomes: Mapping[str, Outcome]) -> None:
    """Section 2, headers: the client's value if it sent one, else Go's ``gzip``.

    Go adds none beside a Range header: not in the text, but in the captured bytes (11).
    """
    sent = {key.lower(): value for key, value in SUBMISSIONS[name].headers}
    default = [] if "range" in sent else ["gzip"]

    expected = [sent["accept-encoding"]] if "accept-encoding" in sent else default
    assert outcomes[name].received.values("Accept-Encoding") == expected


@pytest.mark.ingress
def test_expect(api: Api, behind_ingress: bool) -> None:
    """Section 2, body and framing: ``Expect: 100-continue`` is answered, and not passed on (13)."""
    body = b'{"input_text": "' + b"a " * 2_000_000 + b'"}'
    head = (
        f"POST {api.path} HTTP/1.1\r\nHost: {api.address.netloc}\r\nAccept: */*\r\n"
        "User-Agent: curl/7.88.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with _connect(api) as connection:
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n")
        connection.sendall(body)
        posted = b""
        while b"}" not in posted:
            posted += connection.recv(65536)
    answer = re.search(rb'\{"id":"[^"]+"\}', posted)
    assert answer
    outcome = Outcome(Answer(200, "OK", (), answer[0]))
    api.follow([outcome])

    expected = captured(BIG)
    received = outcome.received
    assert received.told["sha256"] == hashlib.sha256(body).hexdigest()
    assert normal(received, api.path, ingress=behind_ingress) == normal(
        expected, "/sentiment", ingress=behind_ingress
    )


CHOSEN = ["my-own-id-1", "a/b", "ä b"]


@pytest.mark.ingress
@pytest.mark.parametrize("chosen", CHOSEN)
def test_id_of_an_internal_client(chosen: str, api: Api, token: str) -> None:
    """Section 2, headers: a client that Envoy holds to be internal keeps its x-request-id.

    Sent with something random behind it, for ids are remembered; an id with a slash cannot be
    polled, so the container is asked what it got.
    """
    chosen = f"{chosen}-{token}"
    request = Submission({"token": token}, (("x-request-id", chosen.encode()),))

    posted = api.post(request)
    received = _told(api, token)

    if received.values("X-Envoy-External-Address"):
        pytest.skip("this client is not internal")
    assert posted.body.decode() == f'{{"id":"{chosen}"}}\n'
    assert received.values("X-Cortex-Request-Id") == [chosen.encode().decode("latin-1")]
    assert received.values("X-Request-Id") == [chosen.encode().decode("latin-1")]


@pytest.mark.ingress
def test_id_of_a_client_from_outside(api: Api, token: str) -> None:
    """Section 2, headers: with an X-Forwarded-For from outside, a fresh UUID and the address."""
    headers = (("x-request-id", token), ("X-Forwarded-For", "203.0.113.9"))

    outcome = api.run(Submission(headers=headers))

    assert str(uuid.UUID(outcome.id)) == outcome.id
    assert len(outcome.received.values("X-Envoy-External-Address")) == 1
    assert outcome.received.values("X-Request-Id") == [outcome.id]


def _told(api: Api, token: str) -> Received:
    """The one request that the container got with this token, once it has."""
    receipts = wait_until(lambda: api.receipts(token))
    assert len(receipts) == 1
    return receipts[0]


def _connect(api: Api) -> socket.socket:
    parts = urlsplit(api.url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    connection = socket.create_connection((parts.hostname, port), timeout=DEADLINE)
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return context.wrap_socket(connection, server_hostname=parts.hostname)
    return connection
