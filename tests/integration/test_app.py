"""The container over HTTP: real uvicorn, a fake model."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from project.app import create_app
from project.engine import load_classifier
from project.sentiment.files import WEIGHTS
from project.sentiment.golden import Golden, read_golden, write_golden
from project.sentiment.prediction import Classifier, TokenIds
from project.settings import Settings
from tests.helpers import DEADLINE, FakeClassifier, serve, wait_until


def is_ready(url: str) -> bool:
    """Whether the container says that it is."""
    return httpx.get(f"{url}/healthcheck").status_code == 200


def fault(response: httpx.Response) -> dict[str, object]:
    """The problem, as it comes to a direct caller or to one behind Cortex."""
    answer: dict[str, object] = response.json()
    return answer.get("error", answer)  # type: ignore[return-value]


@pytest.fixture
def url(classifier: FakeClassifier) -> Iterator[str]:
    """A container that is ready."""
    settings = Settings(max_texts=3, max_body_bytes=1000, max_waiting_requests=2)
    with serve(create_app(settings, lambda _: classifier)) as url:
        wait_until(lambda: is_ready(url))
        yield url


def test_one_text(url: str) -> None:
    """A text is answered with an object of its label and scores."""
    response = httpx.post(url, json={"input_text": "12345"})

    assert response.status_code == 200
    assert response.json() == {
        "label": "POSITIVE",
        "score": 0.05,
        "scores": {"POSITIVE": 0.05, "NEGATIVE": 0.95},
        "tokens": 5,
        "windows": 1,
        "truncated": False,
        "model": "fake",
        "revision": "0123456789ab",
        "backend": "fake",
    }


def test_list_of_texts(url: str) -> None:
    """A list is answered with an object too, predictions in order."""
    answer = httpx.post(url, json={"input_text": ["a", "abc", "ab"]}).json()

    assert [each["score"] for each in answer["predictions"]] == [0.01, 0.03, 0.02]
    assert answer["model"] == "fake"


def test_query(url: str) -> None:
    """The original's curl: a query and an empty form."""
    response = httpx.post(
        f"{url}/?input_text=i%20like%20you",
        headers={"accept": "application/json", "content-type": "application/x-www-form-urlencoded"},
        content=b"",
    )

    assert response.json()["score"] == 0.1


def test_query_behind_ingress(url: str) -> None:
    """On a cluster the query arrives in a header only."""
    headers = {"X-Envoy-Original-Path": "/sentiment?input_text=i+like+you"}

    assert httpx.post(url, headers=headers).json()["score"] == 0.1


def test_chunked_body(url: str) -> None:
    """Cortex sends chunks and no length, and curl -d calls JSON a form."""

    def chunks() -> Iterator[bytes]:
        yield b'{"input_'
        yield b'text": "abc"}'

    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert httpx.post(url, content=chunks(), headers=headers).json()["score"] == 0.03


def test_refusal_names_field_and_limit(url: str) -> None:
    """A direct caller gets a status and the reason."""
    response = httpx.post(url, json={"input_text": ["a"] * 4})

    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {
        "type": "urn:problem-type:sentiment:too-many-texts",
        "title": "There are too many texts",
        "status": 422,
        "detail": "input_text holds 4 texts, at most 3 are taken",
        "field": "input_text",
        "limit": 3,
    }


def test_refusal_behind_cortex_is_a_result(url: str) -> None:
    """Cortex shows clients no status and no body but that of a 200."""
    response = httpx.post(url, json={}, headers={"X-Cortex-Request-ID": "1"})

    assert response.status_code == 200
    assert response.json()["error"]["field"] == "input_text"


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 413)])
def test_body_limit(url: str, size: int, status: int) -> None:
    """The limit is inclusive."""
    body = b'"a"'.ljust(size)

    assert httpx.post(url, content=body).status_code == status


def test_healthcheck_answers_during_inference(url: str, classifier: FakeClassifier) -> None:
    """A busy model does not make the container look dead."""
    classifier.gate.clear()
    busy = threading.Thread(target=httpx.post, args=(url,), kwargs={"json": {"input_text": "a"}})
    busy.start()
    wait_until(lambda: ["a"] in classifier.calls)

    assert is_ready(url)

    classifier.gate.set()
    busy.join(DEADLINE)


def test_overload_is_503(url: str, classifier: FakeClassifier) -> None:
    """More requests than may wait are told to come back."""
    classifier.gate.clear()
    answers: list[int] = []

    def send() -> None:
        answers.append(httpx.post(url, json={"input_text": "a"}, timeout=DEADLINE).status_code)

    senders = [threading.Thread(target=send) for _ in range(3)]
    for sender in senders:
        sender.start()
    wait_until(lambda: answers)
    assert answers == [503]

    classifier.gate.set()
    for sender in senders:
        sender.join(DEADLINE)
    assert sorted(answers) == [200, 200, 503]


def test_queued_request_waits_its_turn_for_room(classifier: FakeClassifier) -> None:
    """It is tokenised once, and no direct caller takes the room that it waits for."""
    with (
        serve(create_app(Settings(max_waiting_tokens=8), lambda _: classifier)) as url,
        ThreadPoolExecutor() as senders,
    ):
        wait_until(lambda: is_ready(url))
        classifier.gate.clear()
        holding = senders.submit(httpx.post, url, json="hold", timeout=DEADLINE)
        wait_until(lambda: ["hold"] in classifier.calls)
        headers = {"X-Cortex-Request-ID": "1"}
        queued = senders.submit(httpx.post, url, json="large!", headers=headers, timeout=DEADLINE)
        wait_until(lambda: "large!" in classifier.encoded)
        direct = senders.submit(httpx.post, url, json="b", timeout=DEADLINE)
        wait_until(lambda: direct.done() or "b" in classifier.encoded)
        classifier.gate.set()

        statuses = [each.result().status_code for each in (holding, queued, direct)]

    assert statuses == [200, 200, 503]
    assert classifier.encoded.count("large!") == 1


def test_not_ready_until_warm(classifier: FakeClassifier) -> None:
    """503 with a reason until the model has answered a first text."""
    classifier.gate.clear()
    with serve(create_app(Settings(), lambda _: classifier)) as url:
        wait_until(lambda: classifier.calls)
        health = httpx.get(f"{url}/healthcheck")
        refused = httpx.post(url, json={"input_text": "a"})
        classifier.gate.set()
        wait_until(lambda: is_ready(url))

    assert (health.status_code, health.json()["reason"]) == (503, "the model is being loaded")
    assert (refused.status_code, refused.json()["detail"]) == (503, "the model is being loaded")


@pytest.mark.parametrize("headers", [{}, {"X-Cortex-Request-ID": "1"}])
def test_errors_do_not_wait_for_the_model(
    classifier: FakeClassifier, headers: dict[str, str]
) -> None:
    """What is wrong with a request is told before it is ready; a list is answered as later."""
    bodies = [["", {"id": "b", "text": " "}], "", {"input_text": "a", "top_k": 0}]
    classifier.gate.clear()
    with serve(create_app(Settings(), lambda _: classifier)) as url:
        wait_until(lambda: classifier.calls)
        listed, empty, option = (httpx.post(url, json=body, headers=headers) for body in bodies)
        classifier.gate.set()
        wait_until(lambda: is_ready(url))
        later = httpx.post(url, json=bodies[0], headers=headers).json()

    assert listed.status_code == 200
    assert set(listed.json()) == {"predictions"}
    assert listed.json()["predictions"] == later["predictions"]
    assert [each["error"]["field"] for each in later["predictions"]] == [
        "input_text[0]",
        "input_text[1].text",
    ]
    assert later["model"] == "fake"
    assert empty.status_code == option.status_code == (200 if headers else 422)
    assert (fault(empty)["field"], fault(option)["field"]) == ("input_text", "top_k")


def test_caller_who_left_is_not_computed(url: str, classifier: FakeClassifier) -> None:
    """A request whose client has gone is dropped before the model sees it."""
    classifier.gate.clear()
    busy = threading.Thread(target=httpx.post, args=(url,), kwargs={"json": {"input_text": "a"}})
    busy.start()
    wait_until(lambda: ["a"] in classifier.calls)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, json={"input_text": "gone"}, timeout=0.2)
    wait_until(lambda: httpx.post(url, json={"input_text": ""}).status_code == 422)

    classifier.gate.set()
    busy.join(DEADLINE)
    assert httpx.post(url, json={"input_text": "later"}).status_code == 200
    assert ["gone"] not in classifier.calls


def test_late_answer_is_504(classifier: FakeClassifier) -> None:
    """A request that the model does not come to in time ends with a status of its own."""
    settings = Settings(request_timeout_seconds=0.2)
    with serve(create_app(settings, lambda _: classifier)) as url:
        wait_until(lambda: is_ready(url))
        classifier.gate.clear()
        response = httpx.post(url, json={"input_text": "a"})
        classifier.gate.set()

    assert response.status_code == 504
    assert response.json()["detail"] == "not answered in 0.2 s"


def test_long_text_may_be_refused() -> None:
    """ON_LONG_TEXT=reject, with the real tokenizer: the text is named, and both lengths."""
    settings = Settings(on_long_text="reject")
    with serve(create_app(settings)) as url:
        wait_until(lambda: is_ready(url))
        listed = httpx.post(url, json={"input_text": ["good", "good " * 600]})
        alone = httpx.post(url, json={"input_text": "good " * 600})
        asked = httpx.post(url, json={"input_text": "good " * 600, "on_long": "truncate"})

    good, bad = listed.json()["predictions"]
    assert (listed.status_code, good["label"]) == (200, "POSITIVE")
    assert bad["error"]["detail"] == "input_text[1] has 600 tokens, at most 510 are taken"
    assert bad["error"]["limit"] == 510
    assert alone.status_code == 422
    assert alone.json()["detail"] == "input_text has 600 tokens, at most 510 are taken"
    assert asked.json()["truncated"] is True


def test_model_that_answers_wrongly_is_not_served(tmp_path: Path) -> None:
    """The service stays un-ready when the golden answers are not reproduced, and says so."""
    folder = tmp_path / "weights"
    shutil.copytree(WEIGHTS, folder)
    golden = read_golden(folder)
    write_golden(folder, [Golden(golden[0].text, {"NEGATIVE": 0.5, "POSITIVE": 0.5})])
    with serve(create_app(Settings(model=str(folder)))) as url:
        wait_until(lambda: httpx.get(f"{url}/healthcheck").json()["status"] == "failed")
        health = httpx.get(f"{url}/healthcheck")
        refused = httpx.post(url, json="a")
        queued = httpx.post(url, json="a", headers={"X-Cortex-Request-ID": "1"})

    assert health.status_code == 503
    assert "'i like you'" in health.json()["reason"]
    assert "0.001 is tolerated" in health.json()["reason"]
    assert (refused.status_code, queued.status_code) == (503, 500)
    assert refused.headers["retry-after"] == "1"
    assert "'i like you'" in queued.json()["detail"]


def test_graph_that_cannot_be_checked_is_not_served(tmp_path: Path) -> None:
    """Without golden answers the service stays un-ready, and says how to get them."""
    folder = tmp_path / "weights"
    shutil.copytree(WEIGHTS, folder)
    (folder / "golden.json").unlink()
    with serve(create_app(Settings(model=str(folder)))) as url:
        wait_until(lambda: httpx.get(f"{url}/healthcheck").json()["status"] == "failed")
        health = httpx.get(f"{url}/healthcheck")

    assert health.status_code == 503
    assert "export the model with python -m project.sentiment.export" in health.json()["reason"]


@pytest.mark.parametrize("model", ["broken", "missing"])
def test_model_that_cannot_be_loaded_ends_the_process(
    model: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Exit code 1 and one line that names the cause, be it the loader or the folder."""
    died: list[int] = []

    def load(settings: Settings) -> Classifier:
        raise OSError("no such weights")

    settings = Settings(model=str(tmp_path / "nothing"))
    with serve(
        create_app(settings, load if model == "broken" else load_classifier, died.append)
    ) as url:
        wait_until(lambda: died)
        assert not is_ready(url)

    assert died == [1]
    lines = [each.getMessage() for each in caplog.records if each.levelname == "CRITICAL"]
    assert len(lines) == 1
    assert ("no such weights" if model == "broken" else "nothing") in lines[0]


class NoNumber(FakeClassifier):
    """Answers with what JSON cannot hold, once it is warm."""

    def infer(self, batch: Sequence[TokenIds], *, alone: bool = False) -> list[list[float]]:
        """Not a number."""
        return [[math.nan if len(self.calls) > 1 else 0.5] for _ in super().infer(batch)]


@pytest.mark.parametrize("headers", [{}, {"X-Cortex-Request-ID": "1"}])
@pytest.mark.parametrize(
    ("kind", "text"), [(FakeClassifier, "raise"), (NoNumber, "a")], ids=["fails", "nan"]
)
def test_fault_of_the_service(
    kind: type[FakeClassifier],
    text: str,
    headers: dict[str, str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A 500 for every caller, for it must count as failed; the reason is in the log only."""
    with serve(create_app(Settings(), lambda _: kind())) as url:
        wait_until(lambda: is_ready(url))
        response = httpx.post(url, json=text, headers=headers)

    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == "the service failed; its log has the reason"
    assert "a request failed" in caplog.messages


@pytest.mark.parametrize("headers", [{}, {"X-Cortex-Request-ID": "1"}])
@pytest.mark.parametrize(
    ("kind", "text"), [(FakeClassifier, "raise"), (NoNumber, "a")], ids=["fails", "nan"]
)
def test_fault_of_the_service_in_every_text(
    kind: type[FakeClassifier], text: str, headers: dict[str, str]
) -> None:
    """Where no text of a list can be classified, the request is a 500 as well."""
    with serve(create_app(Settings(), lambda _: kind())) as url:
        wait_until(lambda: is_ready(url))
        texts = ["", text, "a" * 1001, text]
        body = {"input_text": texts, "on_long": "reject"}
        response = httpx.post(url, json=body, headers=headers)

    assert response.status_code == 500
    assert response.json()["type"] == "urn:problem-type:sentiment:internal"


@pytest.mark.parametrize("headers", [{}, {"X-Cortex-Request-ID": "1"}])
def test_fault_of_the_service_in_one_text(url: str, headers: dict[str, str]) -> None:
    """One text that the model fails on has an error in its place; the others are classified."""
    response = httpx.post(url, json=["ab", "raise", ""], headers=headers)

    assert response.status_code == 200
    first, second, third = response.json()["predictions"]
    assert first["score"] == 0.02
    assert second["error"] == {
        "type": "urn:problem-type:sentiment:internal",
        "title": "The service failed",
        "status": 500,
        "detail": "input_text[1] cannot be classified: the service failed; its log has the reason",
        "field": "input_text[1]",
    }
    assert third["error"]["status"] == 422


def test_no_metrics_by_default(url: str) -> None:
    """Without ENABLE_METRICS there is no such route."""
    assert httpx.get(f"{url}/metrics").status_code == 404


def test_metrics_carry_configured_names(classifier: FakeClassifier) -> None:
    """METRICS_NAMESPACE and METRICS_SUBSYSTEM are in every name of a request's metric."""
    settings = Settings(enable_metrics=True, metrics_namespace="text", metrics_subsystem="mood")
    with serve(create_app(settings, lambda _: classifier)) as url:
        wait_until(lambda: is_ready(url))
        httpx.post(url, json={"input_text": "a"})
        metrics = httpx.get(f"{url}/metrics").text

    assert 'text_mood_http_requests_total{handler="/",method="POST",status="2xx"} 1.0' in metrics


def test_openapi_describes_the_body(url: str) -> None:
    """The schema that /docs shows has the body and its field."""
    schema = httpx.get(f"{url}/openapi.json").json()

    body = schema["paths"]["/"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["oneOf"][-1]["properties"]) == {"input_text", "id", "on_long", "top_k"}
