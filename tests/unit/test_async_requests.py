"""The command-line client, against a transport instead of a network."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import async_requests
from tests.helpers import ROOT

ENDPOINT = "http://gateway/sentiment/"


class FakeGateway(httpx.AsyncBaseTransport):
    """Answers by the text: most complete at their second poll."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.polls: dict[str, int] = {}
        self.most = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Submit or poll."""
        if request.method == "POST":
            return self._submit(json.loads(await request.aread())["input_text"])
        request_id = request.url.path.removeprefix("/sentiment/")
        self.polls[request_id] = self.polls.get(request_id, 0) + 1
        return self._poll(request_id, self.texts[request_id])

    def _submit(self, text: str) -> httpx.Response:
        if text == "refused":
            return httpx.Response(500, text="error: disk full")
        if text == "unreachable":
            raise httpx.ConnectError("nobody there")
        if text == "html":
            return httpx.Response(200, text="<html>")
        if text == "direct":
            return httpx.Response(200, json={"label": "POSITIVE"})
        if text == "list":
            return httpx.Response(200, json=[])
        request_id = f"id-{len(self.texts)}"
        self.texts[request_id] = text
        unfinished = [each for each in self.texts if self.polls.get(each, 0) < 2]
        self.most = max(self.most, len(unfinished))
        return httpx.Response(200, json={"id": request_id})

    def _poll(self, request_id: str, text: str) -> httpx.Response:
        answer: dict[str, object] = {"id": request_id, "status": "in_queue"}
        if text == "bad":
            answer["status"] = "failed"
        elif self.polls[request_id] > 1 and text != "stuck":
            answer |= {"status": "completed", "result": self._result(text)}
        return httpx.Response(200, json=answer)

    def _result(self, text: str) -> object:
        results: dict[str, object] = {
            "empty": {"error": {"message": "input_text[0] is empty", "field": "input_text"}},
            "odd": {"error": "odd"},
            "null": None,
        }
        return results.get(text, {"label": "POSITIVE", "score": 0.9})


def send(
    texts: list[str], capsys: pytest.CaptureFixture[str], *, concurrency: int = 4
) -> tuple[list[dict[str, object]], int, str]:
    """Classify ``texts``: the lines printed, the failures counted, what stderr got."""
    failed = asyncio.run(
        async_requests.run(
            ENDPOINT,
            texts,
            concurrency=concurrency,
            seconds_per_text=0.05,
            transport=FakeGateway(),
        )
    )
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], failed, captured.err


def test_a_line_per_text_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    """Lines come in the texts' order, with the result; a summary ends it."""
    texts = [f"text {number}" for number in range(10)]

    lines, failed, summary = send(texts, capsys)

    assert [line["text"] for line in lines] == texts
    assert lines[0]["result"] == {"label": "POSITIVE", "score": 0.9}
    assert failed == 0
    assert "POSITIVE 10; failed 0" in summary


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("bad", "failed; the service's log has the reason"),
        ("empty", "input_text[0] is empty"),
        ("odd", "odd"),
        ("null", "the result is no object: None"),
        ("refused", "HTTP 500: error: disk full"),
        ("unreachable", "ConnectError: nobody there"),
        ("html", "the answer is not JSON: '<html>'"),
        ("list", "the answer is no object: '[]'"),
        ("direct", "the answer has no 'id'; is the endpoint an AsyncAPI's?"),
        ("\udcff", "UnicodeEncodeError"),
        ("stuck", "in_queue after 0.05 s"),
    ],
)
def test_failure_has_its_reason(text: str, error: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What goes wrong is on the text's line, and the others are not touched."""
    lines, failed, _ = send(["a", text, "b"], capsys)

    assert [line.get("error") is None for line in lines] == [True, False, True]
    assert error in str(lines[1]["error"])
    assert failed == 1


def test_concurrency_is_kept() -> None:
    """No more texts are on their way than asked for."""
    gateway = FakeGateway()

    asyncio.run(
        async_requests.run(
            ENDPOINT,
            [str(number) for number in range(20)],
            concurrency=3,
            seconds_per_text=60,
            transport=gateway,
        )
    )

    assert gateway.most == 3


def test_file_is_read_by_line(tmp_path: Path) -> None:
    """Only line feeds end a text; a last one adds no empty text, a byte order mark no character."""
    path = tmp_path / "texts"
    path.write_text("a\u2028b\n\nc\n", encoding="utf-8-sig")

    assert async_requests._read_lines(path) == ["a\u2028b", "", "c"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--concurrency", "0"], "at least 1"),
        (["--file", "x", "text"], "not both"),
        (["--file", "/nonexistent"], "--file /nonexistent"),
    ],
)
def test_wrong_call(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and what is wrong."""
    with pytest.raises(SystemExit) as caught:
        async_requests.main(arguments)

    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_finds_its_libraries(tmp_path: Path) -> None:
    """With an interpreter that lacks them, the one of ``make run`` takes over."""
    script = shutil.copy(ROOT / "async_requests.py", tmp_path)
    without = [sys.executable, "-S", script, "--help"]

    failed = subprocess.run(without, capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in failed.stderr

    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    found = subprocess.run(without, capture_output=True, text=True, check=False)
    assert "--endpoint" in found.stdout
