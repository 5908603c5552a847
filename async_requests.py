"""Sends texts to a sentiment AsyncAPI and prints a JSON line per text, in their order.

    python async_requests.py "i like you" "i hate you"
    python async_requests.py --file reviews.txt > results.jsonl

Exit code 0 if every text was classified, 1 if any was not, 2 if it was called wrongly.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

VENV = Path(__file__).parent / ".venv"

try:
    import httpx
    from tqdm import tqdm
except ModuleNotFoundError:
    # `make run` has installed both into .venv, and `python async_requests.py` must find them there.
    if not (VENV / "bin/python").exists() or Path(sys.prefix) == VENV.resolve():
        raise
    os.execv(VENV / "bin/python", [str(VENV / "bin/python"), *sys.argv])  # noqa: S606

ENDPOINT = "http://localhost:8888/sentiment"
SAMPLE_TEXTS = ("i like you", "i hate you")
POLL_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Pauses between the polls of one request; the last one stays."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one text: a result, or an error that says why there is none."""

    text: str
    id: str | None = None
    result: dict[str, object] | None = None
    error: str | None = None

    def line(self) -> str:
        """The outcome as one line of JSON."""
        fields = {"text": self.text, "id": self.id, "result": self.result, "error": self.error}
        kept = {name: value for name, value in fields.items() if value is not None}
        # An argument that is no UTF-8 holds half characters: JSON can escape them, UTF-8 cannot.
        return json.dumps(kept, ensure_ascii=False).encode(errors="backslashreplace").decode()


class RequestFailed(RuntimeError):
    """A text was not classified; the message says why."""


class Client:
    """Submits one text and polls for its result.

    Args:
        endpoint: of the API, without a slash at its end.
        timeout: seconds from the submission to the result of one text.
    """

    def __init__(self, http: httpx.AsyncClient, endpoint: str, timeout: float) -> None:
        self._http = http
        self._endpoint = endpoint.rstrip("/")
        self._timeout = timeout

    async def classify(self, text: str) -> Outcome:
        """Classify ``text``; whatever goes wrong is in the outcome."""
        request_id: str | None = None
        try:
            request_id = await self._submit(text)
            return Outcome(text, request_id, result=await self._poll(request_id))
        except RequestFailed as error:
            return Outcome(text, request_id, error=str(error))
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            return Outcome(text, request_id, error=f"{type(error).__name__}: {error}")

    async def _submit(self, text: str) -> str:
        response = await self._http.post(self._endpoint, json={"input_text": text})
        return str(_field(_object(response), "id"))

    async def _poll(self, request_id: str) -> dict[str, object]:
        deadline = time.monotonic() + self._timeout
        for pause in itertools.chain(POLL_SECONDS, itertools.repeat(POLL_SECONDS[-1])):
            answer = _object(await self._http.get(f"{self._endpoint}/{request_id}"))
            status = _field(answer, "status")
            if status == "completed":
                return _success(_field(answer, "result"))
            if status == "failed":
                raise RequestFailed("failed; the service's log has the reason")
            if time.monotonic() > deadline:
                raise RequestFailed(f"{status} after {self._timeout:g} s")
            await asyncio.sleep(pause)
        raise AssertionError("the pauses have no end")


def _object(response: httpx.Response) -> dict[str, object]:
    if response.status_code != 200:
        raise RequestFailed(f"HTTP {response.status_code}: {response.text.strip()[:200]}")
    try:
        answer = response.json()
    except ValueError as error:
        raise RequestFailed(f"the answer is not JSON: {response.text[:200]!r}") from error
    if not isinstance(answer, dict):
        raise RequestFailed(f"the answer is no object: {response.text[:200]!r}")
    return answer


def _field(answer: dict[str, object], name: str) -> object:
    if name not in answer:
        raise RequestFailed(f"the answer has no {name!r}; is the endpoint an AsyncAPI's?")
    return answer[name]


def _success(result: object) -> dict[str, object]:
    if not isinstance(result, dict):
        raise RequestFailed(f"the result is no object: {result!r}")
    if "error" in result:
        error = result["error"]
        detail = error.get("detail", error.get("message")) if isinstance(error, dict) else error
        raise RequestFailed(str(detail))
    return result


async def classify_all(
    client: Client, texts: Sequence[str], concurrency: int
) -> AsyncIterator[Outcome]:
    """Classify ``texts``, at most ``concurrency`` at once; outcomes come in the texts' order."""
    waiting: deque[asyncio.Task[Outcome]] = deque()
    try:
        for text in texts:
            waiting.append(asyncio.create_task(client.classify(text)))
            if len(waiting) >= concurrency:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()


async def run(
    endpoint: str,
    texts: Sequence[str],
    *,
    concurrency: int,
    seconds_per_text: float,
    transport: httpx.AsyncBaseTransport | None = None,
) -> int:
    """Print an outcome per text and a summary; returns how many were not classified."""
    start = time.perf_counter()
    labels: Counter[str] = Counter()
    failed = 0
    async with httpx.AsyncClient(timeout=30.0, transport=transport) as http:
        client = Client(http, endpoint, seconds_per_text)
        with tqdm(total=len(texts), unit="text", file=sys.stderr) as bar:
            async for outcome in classify_all(client, texts, concurrency):
                print(outcome.line(), flush=True)
                bar.update()
                if outcome.result is None:
                    failed += 1
                else:
                    labels[str(outcome.result.get("label"))] += 1
    seconds = time.perf_counter() - start
    counts = ", ".join(f"{label} {count}" for label, count in sorted(labels.items()))
    print(
        f"{len(texts)} texts in {seconds:.1f} s ({len(texts) / seconds:.1f}/s):"
        f" {counts or 'none classified'}; failed {failed}",
        file=sys.stderr,
    )
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("texts", nargs="*", help=f"texts to classify ({', '.join(SAMPLE_TEXTS)})")
    parser.add_argument("--file", type=Path, help="texts to classify, one per line, UTF-8")
    parser.add_argument("--endpoint", default=ENDPOINT, help="of the API (%(default)s)")
    parser.add_argument("--concurrency", type=int, default=16, help="at once (%(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=300.0, help="seconds for one text (%(default)s)"
    )
    options = parser.parse_args(argv)
    if options.concurrency < 1:
        parser.error("--concurrency must be at least 1")
    if options.texts and options.file:
        parser.error("give texts or --file, not both")
    try:
        texts = _read_lines(options.file) if options.file else options.texts or SAMPLE_TEXTS
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"--file {options.file}: {error}")
    failed = asyncio.run(
        run(
            options.endpoint,
            texts,
            concurrency=options.concurrency,
            seconds_per_text=options.timeout,
        )
    )
    return 1 if failed else 0


def _read_lines(path: Path) -> list[str]:
    # Not splitlines: it also splits at characters that may stand inside a text, such as U+2028.
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


if __name__ == "__main__":
    sys.exit(main())
