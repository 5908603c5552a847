"""Contract, sections 2 and 3: probes, concurrency, time, and what becomes of broken connections."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from .client import Api, Outcome, Received, Submission, http_answer, pause, raw_answer, wait_until

OBJECT = http_answer(b'{"ok":true}')
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
PICKUP = 12.0  # seconds: an idle queue is looked at after about 10 at worst

BROKEN = {
    "closed before the answer": raw_answer(b"", "close"),
    "reset before the answer": raw_answer(b"", "reset"),
    "closed within the head": raw_answer(HEAD, "close"),
    "closed within the body": raw_answer(HEAD + b'Content-Length: 99\r\n\r\n{"ok":', "close"),
    "reset within the body": raw_answer(HEAD + b'Content-Length: 99\r\n\r\n{"ok":', "reset"),
    "closed within a chunk": raw_answer(
        HEAD + b'Transfer-Encoding: chunked\r\n\r\nff\r\n{"ok"', "close"
    ),
}


def broken_then_well(token: str) -> dict[str, Submission]:
    """One for each way to break; sent again, the container would answer."""
    return {
        name: Submission({"token": f"{token}{number}", "steps": [step, OBJECT]})
        for number, (name, step) in enumerate(BROKEN.items())
    }


def statuses(outcomes: dict[str, Outcome]) -> list[str]:
    """Of all."""
    return [outcome.status for outcome in outcomes.values()]


# Section 2: probes on the same port


def test_http_probe(api: Api) -> None:
    """Section 2, probes: the dequeuer's GET, byte for byte; the kubelet's have another Host."""
    heads = wait_until(
        lambda: {
            each["head"]
            for each in api.tell()["probes"]
            if "Agent: kube-probe/\r\n" in each["head"]
        }
    )

    port = Received.parse(heads.copy().pop().encode()).values("Host")[0].rpartition(":")[2]
    assert heads == {
        f"GET /healthcheck HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: kube-probe/\r\n"
        "Accept-Encoding: gzip\r\n\r\n"
    }


def test_bare_connects(api: Api) -> None:
    """Section 2, probes: a TCP connect and close every second, beside the readiness probe."""

    def bare() -> list[float]:
        return [each["at"] for each in api.tell()["probes"] if not each["head"]]

    began = api.tell()["at"]
    seen = wait_until(lambda: (new := [at for at in bare() if at > began])[2:] and new, seconds=8)
    gaps = [later - earlier for earlier, later in itertools.pairwise(seen)]
    assert sum(gaps) / len(gaps) == pytest.approx(1, abs=0.3)


def test_nothing_is_pulled_while_unhealthy(api: Api) -> None:
    """Section 2, probes: requests stay in_queue, and are served soon after readiness returns."""
    switched = api.run(Submission({"steps": [{"health": [503, 3]}]}))
    waiting = Outcome(api.post(Submission()))

    assert b'"in_queue"' in api.get(waiting.id).body
    pause(1)
    assert b'"in_queue"' in api.get(waiting.id).body
    api.follow([waiting])

    down = waiting.received.told["at"] - switched.received.told["at"]
    assert 3 <= down <= 3 + 1 + PICKUP


def test_3xx_is_healthy(api: Api) -> None:
    """Section 2, probes: 200 to 399 is healthy."""
    api.run(Submission({"steps": [{"health": [399, 3]}]}))
    during = api.run(Submission())

    probes = api.tell()["probes"]
    answered = [each["status"] for each in probes if each["at"] < during.received.told["at"]]
    assert during.status == "completed"
    assert [status for status in answered if status][-1] == 399


def test_nothing_is_pulled_while_the_port_is_closed(api: Api) -> None:
    """Section 2, probes: the TCP probe holds the queue too."""
    closed = api.run(Submission({"steps": [{"refuse": 3, "hold": 2}]}))
    waiting = Outcome(api.post(Submission()))

    assert b'"in_queue"' in api.get(waiting.id).body
    api.follow([waiting])

    assert waiting.received.told["at"] - closed.received.told["at"] >= 3


# Section 2: concurrency


def test_max_concurrency(api: Api) -> None:
    """Section 2, concurrency: so many in flight, never more; further requests wait in_queue."""
    count = api.max_concurrency
    first = [Outcome(api.post(barrier(count))) for _ in range(count)]
    wait_until(lambda: all(b"in_progress" in api.get(each.id).body for each in first))
    more = [
        Outcome(api.post(Submission({"steps": [{"delay": 0.1}, {}]}))) for _ in range(2 * count)
    ]

    waiting = [api.get(each.id).json()["status"] for each in more]
    running = [api.get(each.id).json()["status"] for each in first]
    api.follow([*first, *more])

    assert running == ["in_progress"] * count
    assert waiting == ["in_queue"] * (2 * count)
    in_flight = {each.received.told["in_flight"] for each in [*first, *more]}
    assert max(in_flight) == count


def barrier(count: int) -> Submission:
    """Is answered when so many are in flight, and a while later."""
    return Submission({"steps": [{"barrier": count, "delay": 1.5}]})


def test_connections_are_reused(api: Api) -> None:
    """Section 2, concurrency: keep-alive connections are."""
    connections = [api.run(Submission()).received.told["connection"] for _ in range(5)]

    assert len(set(connections)) < len(connections)


# Section 3: time


def test_idle_pickup(api: Api) -> None:
    """Section 3, time: an idle queue is looked at after about 10 s at worst."""
    pause(1)

    outcome = api.run(Submission())

    assert outcome.status == "completed"
    assert outcome.seconds <= PICKUP


def test_queued_requests_follow_at_once(api: Api) -> None:
    """Section 3, time: under load there is no pause; 40 queued ones took 1.4 s."""
    outcomes = api.run_all({str(number): Submission() for number in range(40)})

    times = sorted(outcome.received.told["at"] for outcome in outcomes.values())
    assert max(later - earlier for earlier, later in itertools.pairwise(times[5:])) < 2


# Section 3: delivery


def test_idle_connections_that_close(api: Api) -> None:
    """Section 3, delivery: a container that closes idle connections is no failure."""
    for _ in range(5):
        outcome = api.run(Submission({"steps": [OBJECT | {"then": "close"}]}))
        assert outcome.status == "completed"
        pause(0.2)


def test_idempotency_key_and_no_body(api: Api, token: str) -> None:
    """Section 3, delivery: with both, Go sends a request again on a broken reused connection."""
    script = {"token": token, "steps": [raw_answer(b"", "close"), OBJECT]}
    warmed_up(api)

    outcome = api.run(Submission(script, (("Idempotency-Key", "k1"),), body=None))

    assert outcome.status == "completed"
    assert len(api.receipts(token)) == 2


def warmed_up(api: Api) -> None:
    """Have as many connections open as there are workers."""
    count = api.max_concurrency
    api.run_all({str(n): Submission({"steps": [{"barrier": count}]}) for n in range(count)})


@pytest.mark.faithful
def test_broken_connection_is_final(api: Api, token: str) -> None:
    """Section 3, table: closed or reset before or within the answer: failed, no retry.

    Not tried: an answer that is cut off behind its whole JSON value. The row would have it fail; a
    decoder that reads no further than the first value, as another row has it, would not notice.
    """
    requests = broken_then_well(token)

    outcomes = api.run_all(requests)

    assert statuses(outcomes) == ["failed"] * len(BROKEN)
    for request in requests.values():
        assert request.script
        assert len(api.receipts(request.script["token"])) == 1


@pytest.mark.faithful
def test_broken_reused_connection_is_final(api: Api, token: str) -> None:
    """Section 3, delivery: no retry on a broken reused connection for POST."""
    warmed_up(api)

    outcome = api.run(Submission({"token": token, "steps": [raw_answer(b"", "close"), OBJECT]}))

    receipts = api.receipts(token)
    assert outcome.status == "failed"
    assert len(receipts) == 1
    assert receipts[0].told["nth"] > 1


@pytest.mark.redelivering
def test_broken_connection_is_redelivered(api: Api, token: str) -> None:
    """Not the contract's: this project delivers again what Cortex loses."""
    requests = broken_then_well(token)

    outcomes = api.run_all(requests)

    assert statuses(outcomes) == ["completed"] * len(BROKEN)
    for request in requests.values():
        assert request.script
        assert len(api.receipts(request.script["token"])) == 2


@pytest.mark.redelivering
def test_redelivery_ends(api: Api, token: str) -> None:
    """Not the contract's: after three deliveries a request has failed."""
    outcome = api.run(Submission({"token": token, "steps": [raw_answer(b"", "close")]}))

    assert outcome.status == "failed"
    assert len(api.receipts(token)) == 3


def outage(api: Api, first: dict[str, Any]) -> dict[str, Outcome]:
    """A container that goes away with requests behind and beside the one that made it."""
    backlog = {str(n): Submission({"steps": [{"delay": 0.1} | OBJECT]}) for n in range(24)}
    return api.run_all({"first": Submission({"steps": [first]})} | backlog)


def recover(api: Api) -> None:
    """After an outage, submit until a request completes: what is pulled too early fails."""
    wait_until(lambda: api.run(Submission()).status == "completed")


@pytest.mark.faithful
def test_refused_connection_is_final(api: Api) -> None:
    """Section 3, table: connection refused, pulled just after a crash: failed.

    The container stops listening for 3 s; until the probe notices, what is pulled is refused; the
    rest is served later.
    """
    outcomes = outage(api, {"delay": 0.3, "refuse": 3})

    found = statuses(outcomes)
    assert set(found) <= {"completed", "failed"}
    assert "failed" in found
    recover(api)


@pytest.mark.redelivering
def test_refused_connection_is_redelivered(api: Api) -> None:
    """Not the contract's: an outage costs time only."""
    assert set(statuses(outage(api, {"delay": 0.3, "refuse": 3}))) == {"completed"}


@pytest.mark.faithful
def test_exit_is_final(api: Api, token: str) -> None:
    """Section 3, table and delivery: the process exits: failed, and not sent to the next one."""
    outcome = api.run(Submission({"token": token, "steps": [{"exit": True}]}))

    recover(api)
    assert outcome.status == "failed"
    assert api.receipts(token) == []


@pytest.mark.faithful
def test_exit_with_a_backlog(api: Api) -> None:
    """Section 3, delivery: some of what is queued fails; every request ends, and life goes on."""
    outcomes = outage(api, {"delay": 0.3, "exit": True})

    found = statuses(outcomes)
    assert outcomes["first"].status == "failed"
    assert set(found) <= {"completed", "failed"}
    recover(api)


@pytest.mark.redelivering
def test_exit_costs_only_its_cause(api: Api) -> None:
    """Not the contract's: the request that ends every process fails, its neighbours complete."""
    outcomes = outage(api, {"delay": 0.3, "exit": True})

    assert outcomes.pop("first").status == "failed"
    assert set(statuses(outcomes)) == {"completed"}
