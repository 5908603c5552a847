"""``python async_requests.py``: what it reads, writes and says, and its exit codes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

import async_requests
from tests.client.gateway import ENDPOINT, FakeGateway, command
from tests.helpers import ROOT

Capture = pytest.CaptureFixture[str]
SCRIPT = ROOT / "async_requests.py"


def lines(text: str) -> list[dict[str, object]]:
    """JSON Lines as objects."""
    return [json.loads(line) for line in text.splitlines()]


def table(path: Path) -> list[list[str]]:
    """A CSV as its rows."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_texts_of_the_command_line(capfd: Capture) -> None:
    """A line per text, each with an id of its own; the summary is on standard error."""
    gateway = FakeGateway()

    assert command(gateway, "i like you", "i hate you!") == 0

    out, err = capfd.readouterr()
    found = lines(out)
    assert [line["text"] for line in found] == ["i like you", "i hate you!"]
    assert [line["label"] for line in found] == ["NEGATIVE", "POSITIVE"]
    assert found[0]["result"] == {"label": "NEGATIVE", "score": 1}
    assert len({line["id"] for line in found}) == 2
    assert "2 texts: 2 completed, 0 failed" in err
    assert re.search(r"NEGATIVE +█{30} +1 +50.0%", err)


def test_without_texts_samples_are_sent(capfd: Capture) -> None:
    """The bare command sends nine samples, as it says, and prints their ids."""
    gateway = FakeGateway()

    assert command(gateway) == 0

    out, err = capfd.readouterr()
    assert len({line["id"] for line in lines(out)}) == 9
    assert "no texts are given: sending 9 samples to http://gateway/sentiment" in err


def test_failures_are_counted(capfd: Capture) -> None:
    """Exit code 1, the row's error on its line, and the first failures in the summary."""
    assert command(FakeGateway(), "good", "", "null") == 1

    out, err = capfd.readouterr()
    assert [line.get("error") for line in lines(out)] == [
        None,
        "input_text is empty",
        "the result is no object: None",
    ]
    assert "3 texts: 1 completed, 2 failed" in err
    assert "row 2: input_text is empty" in err


def test_csv_to_csv(tmp_path: Path) -> None:
    """All columns come back, quoted right, with ours behind them; taken names get a prefix."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    rows = [["n", "text", "label"], ["1", 'a "quoted", one', "x"], ["2", "two\nlines", "y"]]
    with source.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(rows)

    assert command(FakeGateway(), "--file", str(source), "--output", str(output)) == 0

    found = table(output)
    assert [row[:3] for row in found] == rows
    assert found[0][3:] == ["result_label", "score", "id", "error"]
    assert [row[3:5] for row in found[1:]] == [["POSITIVE", "1"], ["POSITIVE", "1"]]
    assert not output.with_name("out.csv.part").exists()


@pytest.mark.parametrize(
    ("name", "content", "options", "texts"),
    [
        ("a.txt", "one\u2028two\n\nthree\r\n", [], ["one\u2028two", "", "three"]),
        ("a.txt", "\ufefflast line", [], ["last line"]),
        ("a.txt", "", [], []),
        ("a.csv", "", [], []),
        ("a.csv", "only\nx\n", [], ["x"]),
        ("a.csv", "a,b\n1,x\n", ["--column", "b"], ["x"]),
        ("a.csv", "a,b\n1,x\n", ["--column", "2"], ["x"]),
        ("a.csv", "1,x\n2,y\n", ["--column", "2", "--no-header-row"], ["x", "y"]),
        ("a.csv", "a;text\n1;x,y\n", ["--delimiter", ";"], ["x,y"]),
        ("a.tsv", "text\tlabel\nx\t1\n", [], ["x"]),
        ("a.dat", "a\tb\nx\t1\n", ["--column", "a", "--delimiter", "tab"], ["x"]),
        ("a.jsonl", '{"text": "x"}\n{"input_text": "y"}\n"z"\n', [], ["x", "y", "z"]),
        ("a.log", '{"body": "x"}\n', ["--field", "body"], ["x"]),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_inputs(
    name: str, content: str, options: list[str], texts: list[str], packed: bool, tmp_path: Path
) -> None:
    """Text, CSV and JSON Lines, gzip or not, by the name of the file or as told."""
    path = tmp_path / (name + ".gz" * packed)
    data = content.encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    gateway = FakeGateway()

    command(gateway, "--file", str(path), "--quiet", "--output", os.devnull, *options)

    assert gateway.texts() == texts


@pytest.mark.parametrize(
    ("name", "content", "options", "words"),
    [
        ("a.csv", b"a,b\n1,2\n", [], "--column must say where the texts are; there are: a, b"),
        ("a.csv", b"a,b\n1,2\n", ["--column", "c"], "no column 'c'; there are: a, b"),
        ("a.csv", b"a,b\n1,2\n", ["--column", "3"], "no column '3'"),
        ("a.csv", b"a,b\n1,2\n", ["--column", "\u00b2"], "no column '\u00b2'"),
        ("a.csv", b"1,2\n", ["--no-header-row"], "--column must be a number"),
        ("a.csv", b"1,2\n", ["--no-header-row", "--column", "00"], "--column must be a number"),
        ("a.csv", b'text\n"never closed\n', [], "unexpected end of data"),
        ("a.txt", b"caf\xe9\n", [], "is not utf-8; see --encoding"),
        ("a.txt", b"no mark\n", ["--encoding", "utf-16"], "is not utf-16; see --encoding"),
        ("a.txt.gz", b"\x1f\x8b\x08\x00broken", [], "a.txt.gz"),
        ("a.txt.gz", b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 20, [], "invalid block type"),
    ],
)
def test_unreadable_input(
    name: str, content: bytes, options: list[str], words: str, tmp_path: Path, capfd: Capture
) -> None:
    """Exit code 2 and one line with the file and what is wrong."""
    path = tmp_path / name
    path.write_bytes(content)

    assert command(FakeGateway(), "--file", str(path), "--quiet", *options) == 2

    err = capfd.readouterr().err
    assert words in err
    assert name in err
    assert "Traceback" not in err


def test_other_encodings(tmp_path: Path) -> None:
    """``--encoding`` is a codec's name."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"caf\xe9\n")
    gateway = FakeGateway()

    assert command(gateway, "--file", str(path), "--encoding", "latin-1", "--quiet") == 0

    assert gateway.texts() == ["café"]


def test_rows_without_a_text_fail_alone(tmp_path: Path, capfd: Capture) -> None:
    """A row that is not as the others is a failure of its own; it is not sent."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("n,text\n1,x\n2\n3,y,z\n4,w\n", encoding="utf-8")
    gateway = FakeGateway()

    assert command(gateway, "--file", str(source), "--output", str(output), "--json") == 1

    assert [row[5] for row in table(output)[1:]] == [
        "",
        "the row has 1 fields, the header 2",
        "the row has 3 fields, the header 2",
        "",
    ]
    assert gateway.texts() == ["x", "w"]
    summary = json.loads(capfd.readouterr().out)
    assert (summary["completed"], summary["failed"], summary["complete"]) == (2, 2, True)


def test_json_lines_keep_their_fields(tmp_path: Path) -> None:
    """Objects come back with ours added; lines without a text say why."""
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    deep = "[" * 100_000
    rows = ['{"id": 7, "text": "x"}', "not json", "[1]", '{"text": 1}', deep]
    source.write_text("\n".join(rows), encoding="utf-8")

    assert command(FakeGateway(), "--file", str(source), "--output", str(output)) == 1

    found = lines(output.read_text(encoding="utf-8"))
    assert found[0]["id"] == 7
    assert found[0]["result_id"]
    assert found[0]["label"] == "POSITIVE"
    assert str(found[1]["error"]).startswith("the line is not JSON")
    assert str(found[2]["error"]).startswith("the line is no JSON object: [1]")
    assert found[3]["error"] == "the object has no text in field text or input_text"
    assert str(found[4]["error"]).startswith("the line is not JSON: maximum recursion depth")


@pytest.mark.parametrize(
    ("name", "options", "first"),
    [
        ("out.tsv", [], "text\tlabel\tscore\tid\terror"),
        ("out.txt", ["--output-format", "csv"], "text,label,score,id,error"),
    ],
)
def test_output_formats(name: str, options: list[str], first: str, tmp_path: Path) -> None:
    """By the name of the output, or as told."""
    output = tmp_path / name

    assert command(FakeGateway(), "x", "--output", str(output), *options) == 0

    assert output.read_text(encoding="utf-8").splitlines()[0] == first


def test_wide_rows_make_short_batches(tmp_path: Path) -> None:
    """What the output repeats of a row counts: it is held until the row is written."""
    path = tmp_path / "a.jsonl"
    rows = [{"text": str(number), "more": "x" * 60_000} for number in range(8)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    gateway = FakeGateway()

    assert command(gateway, "--file", str(path), "--output", str(tmp_path / "b.jsonl")) == 0

    assert [len(texts) for _, texts in gateway.submitted] == [2, 2, 2, 2]


def test_carriage_returns_are_quoted(tmp_path: Path) -> None:
    """A text with one is one field of a CSV."""
    output = tmp_path / "out.csv"

    assert command(FakeGateway(), "good\rbad", "--output", str(output)) == 0

    assert table(output)[1][0] == "good\rbad"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device is full here")
def test_full_disk_is_said(tmp_path: Path) -> None:
    """Exit code 2 and one line, no traceback."""
    code = (
        f"import sys; from tests.client.gateway import *; sys.exit(command(FakeGateway(), {'x'!r}))"
    )
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )

    assert done.returncode == 2, done.stderr
    assert "the output cannot be written: [Errno 28]" in done.stderr
    assert "Traceback" not in done.stderr


def test_summary_that_nobody_reads(tmp_path: Path) -> None:
    """Not even the interpreter, which ends with 120 then, has anything to say of it."""
    reader, writer = os.pipe()
    os.close(reader)
    code = (
        "import sys; from tests.client.gateway import *;"
        " sys.exit(command(FakeGateway(), *sys.argv[1:]))"
    )
    arguments = ["x", "--json", "--output", str(tmp_path / "out.jsonl")]

    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        stdout=writer, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},  # else there is nothing left to flush
    )  # fmt: skip
    os.close(writer)

    assert (done.returncode, done.stderr) == (0, "")


def test_half_characters_are_escaped(tmp_path: Path) -> None:
    """An argument that is no UTF-8 goes through, and comes back escaped."""
    output = tmp_path / "out.jsonl"

    assert command(FakeGateway(), "a\udcff", "--output", str(output)) == 0

    assert r'"a\udcff"' in output.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--concurrency", "0"], "at least 1"),
        (["--retry-failed", "-1"], "at least 0"),
        (["--timeout", "nan"], "number of seconds"),
        (["--timeout", "x"], "number of seconds"),
        (["--delimiter", "ab"], "one character"),
        (["--encoding", "utf-99"], "no encoding"),
        (["--encoding", "hex"], "no encoding"),
        (["--header", "x"], "'NAME: VALUE'"),
        (["--header", "X-Request-Id: 1"], "is set here"),
        (["--file", "x", "text"], "not both"),
        (["--file", "x", "-"], "not both"),
        (["--output", "x.csv.gz"], "not compressed"),
        (["--endpoint", "gateway"], "must be http://"),
        (["--plot", "x.png"], "needs matplotlib"),
    ],
)
def test_wrong_call(arguments: list[str], message: str, capfd: Capture) -> None:
    """Exit code 2 and what is wrong."""
    with pytest.raises(SystemExit) as caught:
        async_requests.main(arguments)

    assert caught.value.code == 2
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--file", "/nonexistent"], "/nonexistent: No such file or directory"),
        (["x", "--output", "/nonexistent/out"], "--output /nonexistent/out"),
        (["x", "--state", "/nonexistent/state"], "--state /nonexistent/state"),
    ],
)
def test_unusable_files_are_said(arguments: list[str], message: str, capfd: Capture) -> None:
    """Exit code 2 and one line, before anything is sent."""
    gateway = FakeGateway()

    assert command(gateway, *arguments) == 2

    assert message in capfd.readouterr().err
    assert gateway.requests == []


def test_gateway_that_is_down(capfd: Capture) -> None:
    """One clear line, exit code 2."""
    gateway = FakeGateway()
    gateway.faults = [httpx.ConnectError("Connection refused")]

    assert command(gateway, "x", "--quiet") == 2

    err = capfd.readouterr().err.splitlines()
    assert (
        err[0] == f"async_requests: {ENDPOINT} cannot be reached: connect error: Connection refused"
    )


def test_headers_are_sent() -> None:
    """With every request, beside what Cortex needs."""
    gateway = FakeGateway()

    command(gateway, "x", "--header", "Authorization: Bearer a:b", "--quiet")

    assert {headers["authorization"] for headers in gateway.headers} == {"Bearer a:b"}
    # A container that is asked for compression gives answers that Cortex cannot read.
    assert {headers["accept-encoding"] for headers in gateway.headers} == {"identity"}


def test_wait_ready_comes_first(capfd: Capture) -> None:
    """No text is sent before a sample has completed."""
    gateway = FakeGateway()
    gateway.faults = [httpx.ConnectError("refused")]

    assert command(gateway, "x", "--wait-ready", "20") == 0

    assert gateway.texts() == [async_requests.SAMPLE_TEXTS[0], "x"]


def interrupt() -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def write_rows(path: Path, count: int) -> Path:
    """A file of texts."""
    path.write_text("".join(f"text {n}\n" for n in range(count)), encoding="utf-8")
    return path


def test_interrupt_drains(tmp_path: Path, capfd: Capture) -> None:
    """After Ctrl-C what is submitted ends; the same command goes on, and submits nothing twice."""
    gateway = FakeGateway()
    source, output = write_rows(tmp_path / "in.txt", 100), tmp_path / "out.csv"
    arguments = ["--file", str(source), "--output", str(output), "--batch-size", "2",
                 "--window", "4", "--state", str(tmp_path / "state")]  # fmt: skip
    gateway.faults = [*[None] * 40, interrupt]

    assert command(gateway, *arguments) == 130

    err = capfd.readouterr().err
    assert "stopping: waiting for the" in err
    assert "go on with: python" in err
    assert gateway.ended == {request_id for request_id, _ in gateway.submitted}
    assert not output.exists()

    assert command(gateway, *arguments, "--json") == 0
    assert [row[0] for row in table(output)[1:]] == [f"text {n}" for n in range(100)]
    assert len(gateway.texts()) == 100
    assert json.loads(capfd.readouterr().out)["completed"] == 100


def test_second_interrupt_does_not_wait(tmp_path: Path, capfd: Capture) -> None:
    """Ctrl-C twice ends at once, whatever is unfinished."""
    gateway = FakeGateway()
    gateway.faults = [*[None] * 7, interrupt, interrupt]
    arguments = ["a", "stuck", "--output", str(tmp_path / "out.jsonl")]

    assert command(gateway, *arguments) == 130

    err = capfd.readouterr().err
    assert f"1 rows are in {tmp_path}/out.jsonl.part; with --state FILE" in err


def test_interrupt_while_nothing_is_ready() -> None:
    """Nothing is submitted, so nothing is waited for."""
    gateway = FakeGateway(polls=1_000_000)
    gateway.faults = [None, None, interrupt]

    assert command(gateway, "x", "--wait-ready", "1000", "--quiet") == 130

    assert gateway.texts() == [async_requests.SAMPLE_TEXTS[0]]


def test_deadline_ends_the_run(capfd: Capture) -> None:
    """Exit code 1, and what was finished is written."""
    assert command(FakeGateway(), "a", "stuck", "--deadline", "0.5") == 1

    out, err = capfd.readouterr()
    assert [line["text"] for line in lines(out)] == ["a"]
    assert "stopped by --deadline 0.5" in err


def test_finished_run_submits_nothing(tmp_path: Path, capfd: Capture) -> None:
    """The same command once more says the same; rows that were added since are done."""
    gateway = FakeGateway()
    source, output = write_rows(tmp_path / "in.txt", 10), tmp_path / "out.jsonl"
    arguments = ["--file", str(source), "--output", str(output), "--state", str(tmp_path / "s")]
    command(gateway, *arguments)
    before = output.read_bytes()

    assert command(gateway, *arguments) == 0
    assert (len(gateway.texts()), output.read_bytes()) == (10, before)
    assert "10 texts: 10 completed" in capfd.readouterr().err

    write_rows(source, 12)
    assert command(gateway, *arguments) == 0
    assert (len(gateway.texts()), len(output.read_bytes().splitlines())) == (12, 12)


@pytest.mark.parametrize("damage", ["gone", "torn", "shorter", "another"])
def test_output_that_was_touched(tmp_path: Path, damage: str, capfd: Capture) -> None:
    """A torn last row is cut off; what is gone or changed is written again, from the ids."""
    gateway = FakeGateway()
    source, output = write_rows(tmp_path / "in.txt", 10), tmp_path / "out.jsonl"
    arguments = ["--file", str(source), "--output", str(output), "--state", str(tmp_path / "s")]
    command(gateway, *arguments)
    whole = output.read_bytes()
    part = tmp_path / "out.jsonl.part"
    if damage == "gone":
        output.unlink()
    elif damage == "torn":
        output.rename(part)
        part.write_bytes(whole + b'{"text": "to')
        write_rows(source, 11)
    elif damage == "shorter":
        output.write_bytes(whole[:-1])
    else:
        part.write_bytes(whole[::-1])  # of a run without a state, say

    assert command(gateway, *arguments) == 0

    assert output.read_bytes()[: len(whole)] == whole
    assert len(output.read_bytes().splitlines()) == len(gateway.texts())
    again = "is gone or changed" in capfd.readouterr().err
    assert again == (damage in {"gone", "shorter"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--batch-size", "3"], "begun with batch_size 32, not 3"),
        (["--endpoint", "http://other/x"], "begun with endpoint"),
        (["--encoding", "latin-1"], "begun with encoding"),
    ],
)
def test_state_of_another_run(
    tmp_path: Path, change: list[str], words: str, capfd: Capture
) -> None:
    """Exit code 2, and which option differs."""
    source = write_rows(tmp_path / "in.txt", 3)
    arguments = ["--file", str(source), "--state", str(tmp_path / "s"), "--quiet"]
    gateway = FakeGateway()
    command(gateway, *arguments)
    gateway.requests.clear()

    assert command(gateway, *arguments, *change) == 2

    assert words in capfd.readouterr().err
    assert gateway.requests == []


def test_state_of_another_input(tmp_path: Path, capfd: Capture) -> None:
    """Rows that were done must be the same: exit code 2 otherwise."""
    gateway = FakeGateway()
    source = write_rows(tmp_path / "in.txt", 10)
    arguments = ["--file", str(source), "--output", str(tmp_path / "o"), "--state"]
    arguments.append(str(tmp_path / "s"))
    command(gateway, *arguments)
    source.write_text("other\n" * 10, encoding="utf-8")

    assert command(gateway, *arguments) == 2

    assert "the input is not that of the state file" in capfd.readouterr().err


def test_state_must_be_one(tmp_path: Path, capfd: Capture) -> None:
    """Another file, or another program's database, is not touched."""
    state = tmp_path / "s"
    state.write_text("my diary\n" * 100, encoding="utf-8")

    assert command(FakeGateway(), "x", "--state", str(state)) == 2

    assert "is no state file, or damaged" in capfd.readouterr().err
    assert state.read_text(encoding="utf-8") == "my diary\n" * 100


def test_state_that_cannot_be_written(tmp_path: Path, capfd: Capture) -> None:
    """The run ends: an id that is not on disk must not be relied on."""
    gateway = FakeGateway()
    state = tmp_path / "s"
    source = write_rows(tmp_path / "in.txt", 3)
    arguments = ["--file", str(source), "--state", str(state), "--quiet", "--batch-size", "1"]

    def lose_table() -> None:
        """What happens to the file while it is used."""
        opened[0]._database.execute("DROP TABLE requests")

    opened: list[async_requests.StateFile] = []
    original = async_requests.StateFile.load

    def load(self: async_requests.StateFile, first: int) -> None:
        opened.append(self)
        original(self, first)

    gateway.faults = [lose_table]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(async_requests.StateFile, "load", load)
        assert command(gateway, *arguments) == 2

    assert f"--state {state}: cannot be written: no such table" in capfd.readouterr().err


def test_state_has_one_owner(tmp_path: Path) -> None:
    """Two runs on one state would submit twice: the second ends."""
    path = tmp_path / "s"
    first = async_requests.StateFile(path, {})

    with pytest.raises(async_requests.StateError, match="another run uses it"):
        async_requests.StateFile(path, {})

    first.close()
    async_requests.StateFile(path, {}).close()


def test_plot_needs_only_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores by label and latencies are drawn and saved."""
    drawn: list[object] = []

    class Axes:
        def hist(self, values: list[float], **options: object) -> None:
            drawn.append(len(values))

        def set(self, **options: object) -> None:
            """Names of the axes."""

        def legend(self) -> None:
            """Names of the labels."""

    class Figure:
        def __init__(self, **options: object) -> None:
            """Of any size."""

        def subplots(self, *shape: int) -> tuple[Axes, Axes]:
            return Axes(), Axes()

        def savefig(self, path: Path) -> None:
            path.write_bytes(b"image")

    module = SimpleNamespace(Figure=Figure)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: module)
    monkeypatch.setitem(sys.modules, "matplotlib", module)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", module)

    command(FakeGateway(), "a", "bb", "cc", "--plot", str(tmp_path / "p.png"))

    assert drawn == [2, 1, 3]
    assert (tmp_path / "p.png").read_bytes() == b"image"


def test_plain_progress(monkeypatch: pytest.MonkeyPatch, capfd: Capture, tmp_path: Path) -> None:
    """Without a terminal: a line now and then."""
    monkeypatch.setattr(async_requests.PlainDisplay, "period", 0.02)

    command(FakeGateway(), "--file", str(write_rows(tmp_path / "in.txt", 50)), "--batch-size", "1")

    assert re.search(
        r"^\d+ submitted, \d+ in queue, 0 in progress, \d+ completed, 0 failed, .* texts/s, \d+%",
        capfd.readouterr().err,
        re.MULTILINE,
    )


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("fraction", [None, 0.45])
def test_live_progress_fits(width: int, fraction: float | None) -> None:
    """Two lines of counts and a bar, within 80 columns; no escape codes without colour."""
    from rich.console import Console

    progress = async_requests.Progress(4096, 4096, 95840, 1212, 1310.5, fraction, 11280.0)
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=True, no_color=True)

    console.print(async_requests.render(progress, width))

    shown = screen.getvalue()
    rows = [re.sub(r"\x1b\[[0-9;]*m", "", row) for row in shown.splitlines()]
    assert len(rows) == 3
    assert max(map(len, rows)) <= width
    assert rows[1].split() == [
        "105,244", "4,096", "4,096", "95,840", "1,212", "1,310.5", "3:08:00",
    ]  # fmt: skip
    assert ("45 %" in rows[2]) == (fraction is not None)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", shown)


def test_finds_its_libraries(tmp_path: Path) -> None:
    """With an interpreter that lacks them, the one of ``make run`` takes over."""
    script = shutil.copy(SCRIPT, tmp_path)
    without = [sys.executable, "-S", script, "--version"]

    failed = subprocess.run(without, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr == "needs Python 3.11 or newer and httpx: pip install httpx rich\n"

    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    found = subprocess.run(without, capture_output=True, text=True, check=False)
    assert found.stdout == f"async_requests.py {async_requests.__version__}\n"


def test_version_is_the_projects() -> None:
    """The script is copied around: it must say where it comes from."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    assert f'version = "{async_requests.__version__}"' in project


def test_stands_alone() -> None:
    """It imports nothing of the project."""
    text = SCRIPT.read_text(encoding="utf-8")

    assert not re.search(r"^\s*(from|import) (project|tests|bench)\b", text, re.MULTILINE)


def test_documented_options_exist(capsys: Capture) -> None:
    """Every option that the client's page names is one that the script has."""
    with pytest.raises(SystemExit):
        async_requests.main(["--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))

    documented = set(re.findall(r"--[a-z][a-z-]+", (ROOT / "docs/client.md").read_text("utf-8")))
    assert documented <= options
    assert {"--state", "--wait-ready", "--deadline"} <= documented
