"""``AsyncAPIClient``: results in order, bounded, each failure with its reason, retries."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

import async_requests
from async_requests import AsyncAPIClient, CannotRun, Pace, Policy, StateError
from tests.client.gateway import ENDPOINT, FAST, FakeGateway, Fault, classify

BATCHES = replace(FAST, batch_size=4)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the usual ones: the gateway is in this process."""
    for name in ("FIRST_PAUSE", "FIRST_RETRY", "READY_PAUSE"):
        monkeypatch.setattr(async_requests, name, getattr(async_requests, name) / 10)


def run(
    gateway: FakeGateway, texts: list[str], policy: Policy = FAST, state: Path | None = None
) -> list[async_requests.Outcome]:
    """What a client makes of ``texts``."""
    return asyncio.run(classify(gateway, texts, policy, state))


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_outcomes_in_order(batch_size: int) -> None:
    """One outcome per text, in their order, whatever the size of the requests."""
    texts = [f"text {number}" for number in range(10)]
    gateway = FakeGateway()

    outcomes = run(gateway, texts, replace(FAST, batch_size=batch_size))

    assert [outcome.text for outcome in outcomes] == texts
    assert {outcome.label for outcome in outcomes} == {"NEGATIVE"}
    assert {outcome.score for outcome in outcomes} == {1}
    assert sorted(gateway.texts()) == sorted(texts)
    assert [outcome.id for outcome in outcomes][:1] == [gateway.submitted[0][0]]


def test_long_texts_share_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request ends with the text that makes it long."""
    monkeypatch.setattr(async_requests, "BATCH_CHARS", 5)
    gateway = FakeGateway()

    run(gateway, ["12", "345", "6789012", "1", "2", "3", "4", "5", "6"], BATCHES)

    sizes = [len(texts) for _, texts in gateway.submitted]
    assert sizes == [2, 1, 4, 2]


def test_async_texts_are_taken() -> None:
    """Texts may come from an asynchronous iterator, more slowly than their results."""

    async def slow() -> list[str | None]:
        gate = asyncio.Event()

        async def texts() -> AsyncIterator[str]:
            yield "a"
            await gate.wait()
            yield "bb"

        labels: list[str | None] = []
        gateway = FakeGateway()
        async with AsyncAPIClient(ENDPOINT, FAST, transport=gateway.transport) as client:
            async for outcome in client.map(texts()):
                labels.append(outcome.label)
                gate.set()  # the first result does not wait for the second text
        return labels

    assert asyncio.run(slow()) == ["POSITIVE", "NEGATIVE"]


def test_window_is_kept() -> None:
    """No more requests are unfinished than asked for."""
    gateway = FakeGateway(polls=3)

    run(gateway, [str(number) for number in range(30)], replace(FAST, window=3))

    assert gateway.most == 3


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "input_text is empty"),
        ("blank", "input_text is blank"),
        ("busy", "too much waits"),
        ("odd", "odd"),
        ("crash", "failed; the service's log has the reason"),
        ("null", "is no object: None"),
        ("stuck", "in_queue after 0.3 s"),
    ],
)
def test_failure_has_its_reason(text: str, error: str, batch_size: int, old: bool) -> None:
    """What goes wrong is in the text's outcome, and the texts beside it are classified."""
    gateway = FakeGateway(old=old)
    timeout = 0.3 if text == "stuck" else FAST.timeout
    policy = replace(FAST, batch_size=batch_size, timeout=timeout)

    outcomes = run(gateway, ["a", "b", text, "c"], policy)

    assert error in str(outcomes[2].error)
    assert outcomes[2].id
    if text != "stuck" or batch_size == 1:  # a request that takes too long is not sent in parts
        assert [outcome.error is None for outcome in outcomes] == [True, True, False, True]


def test_large_request_is_halved() -> None:
    """A request with more texts than the container takes is sent in parts until they fit."""
    gateway = FakeGateway()
    gateway.max_texts = 3
    texts = [str(number) for number in range(10)]

    async def send() -> tuple[list[str | None], int]:
        policy = replace(FAST, batch_size=10)
        async with AsyncAPIClient(ENDPOINT, policy, transport=gateway.transport) as client:
            errors = [outcome.error async for outcome in client.map(texts)]
            return errors, client.traffic.splits

    assert asyncio.run(send()) == ([None] * 10, 3)


def test_payload_too_large_is_halved() -> None:
    """So is one that the gateway refuses as too large."""
    gateway = FakeGateway()
    too_large = httpx.Response(413, text="error: the payload is larger than 9 bytes")
    gateway.faults = [None, None, None, too_large]

    outcomes = run(gateway, ["a", "b", "c", "d", "e", "f", "g", "h"], replace(BATCHES, window=1))

    assert [outcome.error for outcome in outcomes] == [None] * 8
    assert [len(texts) for _, texts in gateway.submitted] == [4, 2, 2]


def test_failed_request_is_submitted_again() -> None:
    """A request that ended as ``failed`` gets a second chance, with an id of its own."""
    gateway = FakeGateway()
    failed = httpx.Response(200, json={"id": "x", "status": "failed"})
    gateway.faults = [None, failed]

    assert [outcome.error for outcome in run(gateway, ["a"])] == [None]
    assert len({request_id for request_id, _ in gateway.submitted}) == 2


@pytest.mark.parametrize(
    "fault",
    [
        httpx.Response(503, text="upstream connect error"),
        httpx.Response(500, text="error: failed to upload payload"),
        httpx.Response(429, headers={"Retry-After": "0"}),
        httpx.Response(503, headers={"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
        httpx.Response(404),
        httpx.ReadError(""),
        httpx.ReadTimeout("after"),
        httpx.RemoteProtocolError("after"),
        httpx.ConnectError("refused"),
    ],
    ids=str,
)
@pytest.mark.parametrize("keeps_ids", [True, False])
def test_trouble_is_tried_again(fault: Fault, keeps_ids: bool) -> None:
    """What may pass is tried again; a submission that may have arrived is asked for first."""
    gateway = FakeGateway(keeps_ids=keeps_ids)
    gateway.faults = [None, None, None, fault, None, fault]  # the first request proves the endpoint

    outcomes = run(gateway, ["a", "b"], replace(FAST, window=1))

    assert [outcome.error for outcome in outcomes] == [None, None]
    if keeps_ids:
        assert len(gateway.submitted) == 2


def test_retry_after_is_obeyed() -> None:
    """Nobody submits before the time that the gateway named."""
    gateway = FakeGateway()
    gateway.faults = [None, None, None, httpx.Response(503, headers={"Retry-After": "0.4"})]

    async def send() -> float:
        started = asyncio.get_running_loop().time()
        await classify(gateway, ["a", "b"], replace(FAST, window=1))
        return asyncio.get_running_loop().time() - started

    assert asyncio.run(send()) >= 0.4


def test_retry_after_has_an_end() -> None:
    """A gateway that asks to wait for ever is of no use once a request would have timed out."""
    gateway = FakeGateway()
    busy = httpx.Response(503, headers={"Retry-After": "inf"})
    gateway.faults = [None, None, None, *[busy] * 10]

    with pytest.raises(CannotRun, match=r"no good answer for 0.5 s: HTTP 503"):
        run(gateway, ["a", "b"], replace(FAST, window=1, timeout=0.5))


def refusing_b(monkeypatch: pytest.MonkeyPatch) -> FakeGateway:
    """A gateway that answers 502 to every submission of the text b."""
    gateway = FakeGateway()
    handle = gateway.handle

    def refuse_b(request: httpx.Request) -> httpx.Response:
        broken = request.method == "POST" and b'"b"' in request.content
        return httpx.Response(502, text="bad") if broken else handle(request)

    monkeypatch.setattr(gateway, "handle", refuse_b)
    return gateway


def test_one_bad_request_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that never gets an answer, while others do, fails alone."""
    monkeypatch.setattr(async_requests, "MAX_STRIKES", 1)
    gateway = refusing_b(monkeypatch)

    outcomes = run(gateway, ["a", "b", *"cdefghijklmnop"])

    assert [outcome.text for outcome in outcomes if outcome.error] == ["b"]
    assert outcomes[1].error == "HTTP 502: bad, 2 times"


def test_last_request_that_is_always_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails by itself though nobody else asks: the client looks whether the gateway answers."""
    monkeypatch.setattr(async_requests, "MAX_STRIKES", 2)
    monkeypatch.setattr(async_requests, "PROBE_SECONDS", 0.0)
    gateway = refusing_b(monkeypatch)

    outcomes = run(gateway, ["a", "b"])

    assert [outcome.error for outcome in outcomes] == [None, "HTTP 502: bad, 3 times"]


def test_result_that_no_gateway_can_hand_out() -> None:
    """Cortex answers 500 to every poll of a list: it is not polled for ever."""
    gateway = FakeGateway()
    text = "error: json: cannot unmarshal array into Go value of type map[string]interface {}"
    gateway.faults = [None, None, None, None, httpx.Response(500, text=text)]

    outcomes = run(gateway, ["a", "b"], replace(FAST, window=1))

    assert outcomes[0].error is None
    assert "cannot unmarshal array" in str(outcomes[1].error)


def test_gateway_that_is_gone() -> None:
    """Without any good answer for long, the run ends: its rows are not failed one by one."""
    gateway = FakeGateway()
    gateway.faults = [None, None, *[httpx.ConnectError("refused")] * 100]

    with pytest.raises(CannotRun, match=r"no good answer for 0.5 s: connect error: refused"):
        run(gateway, ["a", "b"], replace(FAST, retry_for=0.5))


def test_gateway_that_is_replaced_is_no_good_answer() -> None:
    """An ingress that knows no API for a while ends the run; its rows stay to be done."""
    gateway = FakeGateway()
    gateway.faults = [None, *[httpx.Response(404) for _ in range(1000)]]

    with pytest.raises(CannotRun, match="404"):
        run(gateway, [str(number) for number in range(40)], replace(FAST, retry_for=0.5))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.ConnectError("refused"), "cannot be reached: connect error: refused"),
        (httpx.ConnectTimeout(""), "cannot be reached: connect timeout"),
        (httpx.Response(404), "is not there (HTTP 404): is the name of the API right?"),
        (httpx.Response(405), "is not there (HTTP 405)"),
        (httpx.Response(401, text="no"), "does not let us in (HTTP 401: no): see --header"),
        (httpx.Response(308, headers={"Location": "https://x/"}), "has moved to https://x/"),
        (httpx.Response(304), "has moved to another place"),
        (httpx.Response(400, text="error: missing"), "refuses requests: HTTP 400: error: missing"),
        (httpx.Response(200, json={"label": "POSITIVE"}), "the answer has no id"),
        (httpx.Response(200, text="<html>"), "the answer is not JSON: '<html>'"),
        (httpx.Response(200, json=[]), "the answer is no object: '[]'"),
    ],
)
def test_wrong_endpoint_is_said(answer: Fault, words: str) -> None:
    """An endpoint that is none is named with the reason, after a single request."""
    gateway = FakeGateway()
    gateway.faults = [answer]

    with pytest.raises(CannotRun, match=re.escape(words)):
        run(gateway, ["a", "b", "c"])

    assert gateway.requests == ["POST"]


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("gateway", "must be http://"),
        ("ftp://gateway/x", "must be http://"),
        ("http://host:port", "no URL"),
    ],
)
def test_endpoint_must_be_a_url(endpoint: str, words: str) -> None:
    """It is looked at before anything is sent."""
    with pytest.raises(CannotRun, match=words):
        AsyncAPIClient(endpoint)


def test_odd_answers_fail_their_texts() -> None:
    """Once the endpoint has proved itself, a strange answer is the failure of one request."""
    gateway = FakeGateway()
    strange = [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={"status": "lost"}),
        httpx.Response(400, text="bad"),
    ]
    gateway.faults = [None, None, None, strange[0], None, strange[1], strange[2]]

    outcomes = run(gateway, ["a", "b", "c", "d"], replace(FAST, window=1))

    assert [str(outcome.error)[:22] for outcome in outcomes] == [
        "None",
        "the answer is not JSON",
        "the answer has no stat",
        "HTTP 400: bad",
    ]


def test_wrong_number_of_predictions() -> None:
    """Texts and predictions that cannot be matched are failures."""
    gateway = FakeGateway()
    done = {"id": "x", "status": "completed", "result": {"predictions": [{"label": "A"}]}}
    gateway.faults = [None, httpx.Response(200, json=done)]

    outcomes = run(gateway, ["a", "b"], BATCHES)

    assert [outcome.error for outcome in outcomes] == [
        "the result has 1 predictions for 2 texts"
    ] * 2


def test_ready_when_a_sample_completes() -> None:
    """Refused, absent, busy, failing: all of it is waited for."""
    gateway = FakeGateway()
    failed = httpx.Response(200, json={"id": "x", "status": "failed"})
    gateway.faults = [httpx.ConnectError("refused"), httpx.Response(404), None, failed]

    async def wait() -> None:
        async with AsyncAPIClient(ENDPOINT, FAST, transport=gateway.transport) as client:
            await client.wait_ready(30)
            assert client.traffic.completed == 0

    asyncio.run(wait())

    assert gateway.texts() == [async_requests.SAMPLE_TEXTS[0]] * 2


def test_never_ready_is_said() -> None:
    """The last reason is named."""
    gateway = FakeGateway()
    gateway.faults = [httpx.ConnectError("refused")] * 1000

    async def wait() -> None:
        async with AsyncAPIClient(ENDPOINT, FAST, transport=gateway.transport) as client:
            await client.wait_ready(0.2)

    with pytest.raises(CannotRun, match=r"not ready after 0.2 s: .*refused"):
        asyncio.run(wait())


def test_stop_lets_the_submitted_finish() -> None:
    """After :meth:`stop` nothing is submitted, what was is given back, and no error is left."""
    gateway = FakeGateway()
    errors: list[object] = []

    async def some() -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: errors.append(context))
        async with AsyncAPIClient(ENDPOINT, FAST, transport=gateway.transport) as client:
            count = 0
            async for outcome in client.map(str(number) for number in range(1000)):
                assert outcome.error is None
                count += 1
                client.stop()
            return count

    count = asyncio.run(some())
    gc.collect()  # an exception that nobody has taken is reported then

    assert errors == []
    assert len(gateway.submitted) == count < 20


@pytest.mark.parametrize("keeps_ids", [True, False])
def test_state_gives_results_again(tmp_path: Path, keeps_ids: bool) -> None:
    """A later call with the same state asks for the results and submits only what is new."""
    gateway = FakeGateway(keeps_ids=keeps_ids)
    state = tmp_path / "run.state"
    texts = [str(number) for number in range(8)]

    first = run(gateway, texts, BATCHES, state)
    second = run(gateway, [*texts, "new"], BATCHES, state)

    assert second[:8] == first
    assert sorted(gateway.texts()) == sorted([*texts, "new"])


def test_lost_ids_are_submitted_again(tmp_path: Path) -> None:
    """A gateway that has forgotten a request gets it again."""
    gateway = FakeGateway()
    state = tmp_path / "run.state"
    run(gateway, ["a", "b"], FAST, state)
    gateway.forget()

    outcomes = run(gateway, ["a", "b"], FAST, state)

    assert [outcome.error for outcome in outcomes] == [None, None]
    assert gateway.texts() == ["a", "b"] * 2


def test_state_refuses_other_texts(tmp_path: Path) -> None:
    """The ids of other texts are not taken for theirs."""
    state = tmp_path / "run.state"
    run(FakeGateway(), ["a", "b"], FAST, state)

    with pytest.raises(StateError, match="row 2 of the input is not what was submitted"):
        run(FakeGateway(), ["a", "c"], FAST, state)


def test_requests_that_end_together_are_found_together() -> None:
    """One that is found finished has the oldest that backs off polled, not after its own time."""

    async def check() -> None:
        pace = Pace(lambda: 1000.0)  # all are so old that they back off for ten seconds
        waits = [asyncio.create_task(pace.wait(pace.submitted(), 0.0, 3)) for _ in range(3)]
        await asyncio.sleep(0)  # they begin
        for place, wait in enumerate(waits, start=1):
            pace.ended(2)
            async with asyncio.timeout(1):
                await wait
            assert [each.done() for each in waits] == [True] * place + [False] * (3 - place)

    asyncio.run(check())


def test_pace_follows_the_queue() -> None:
    """The pause is a share of what the requests before it will take, at the pace that is seen."""
    now = [0.0]
    pace = Pace(lambda: now[0])
    ranks = [pace.submitted() for _ in range(10)]
    for _ in range(4):
        now[0] += 0.5
        pace.ended(2)

    pauses = [pace.due(rank) for rank in ranks[4:]]

    assert pauses == [
        pytest.approx(0.5 * place * async_requests.RANK_SHARE, rel=0.21) for place in range(1, 7)
    ]
    assert pace.back_off(1.0) == pytest.approx(async_requests.AGE_SHARE, rel=0.21)
    assert pace.back_off(-1000.0) == pytest.approx(async_requests.LONGEST_PAUSE, rel=0.21)
