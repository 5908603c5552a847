r"""Writes a model's ONNX graph beside its weights, so that both runtimes read one file.

    python -m project.sentiment.export project/sentiment/weights
    python -m project.sentiment.export org/name --revision main --output folder
    python -m project.sentiment.export project/sentiment/weights --int8 --output folder

``model.onnx`` holds the graph only. Its initialisers name a file, an offset and a length: those of
the tensors in ``model.safetensors``, as they are stored, followed by a Cast to single precision and
a Transpose where the graph needs them, which the runtime folds when it loads. ``golden.json`` gets
what ``transformers.pipeline`` answers to a few texts: the serving process checks itself against it.
With ``--int8`` the graph holds the large matrices itself, in 8 bits, and takes more tolerance to
serve. A graph gets its name once it has been checked: one that is there already stays until then.

Sources: the safetensors format (https://github.com/huggingface/safetensors), and
``TensorProto.external_data`` in onnx.proto.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    pipeline,
)

from project.sentiment.files import (
    GRAPH_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    ModelError,
    find_model,
    read_model_config,
)
from project.sentiment.golden import (
    GOLDEN_FILE,
    GOLDEN_TEXTS,
    Golden,
    ParityError,
    check_golden,
    write_golden,
)
from project.sentiment.model import SentimentClassifier
from project.sentiment.options import BackendName
from project.sentiment.quantize import quantize

DRAFT_FILE = "model.draft.onnx"  # a graph that was not checked
SHARED_ELEMENTS = 256  # smaller constants stay in the graph: few of them are stored tensors
ONNX_TYPES = {"F16": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16, "F32": TensorProto.FLOAT}
EXPORT_TOLERANCE, INT8_TOLERANCE = 1e-4, 0.05  # in probability
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""The Hub's names, in its order; a model gets those that its tokenizer produces."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies in a safetensors file, in bytes, and whether it is needed transposed."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """A folder with weights, graph and golden answers.

    Attributes:
        difference: the largest to transformers, in the probability of a golden answer.
    """

    folder: Path
    difference: float


def export(
    model: str, output: Path | None = None, revision: str | None = None, *, int8: bool = False
) -> Exported:
    """Write ``model.onnx`` and ``golden.json`` for a sequence-classification model.

    Where they are missing, ``tokenizer.json`` and ``model.safetensors`` are written as well.

    Args:
        model: a local folder or a Hub id.
        output: a folder to copy the model to first; None writes beside its weights.
        int8: in 8 bits; see :mod:`project.sentiment.quantize`.

    Raises:
        ModelError: the model cannot be loaded, exported or run, or is of a kind that is not served.
        ParityError: the graph answers other than transformers does.
    """
    folder = find_model(model, revision)
    read_model_config(folder)  # before anything is copied
    if output is not None and output.resolve() != folder.resolve():
        folder = _copy(folder, output)
    loaded, tokenizer = _load(folder)
    _complete(folder, loaded, tokenizer)
    graph = _trace(loaded, tokenizer.model_input_names)
    if int8:
        graph = quantize(graph)
    _share_weights(graph.graph, folder / WEIGHTS_FILE)
    draft = folder / DRAFT_FILE
    try:
        draft.write_bytes(graph.SerializeToString())
        golden, difference = _check(
            folder, loaded, tokenizer, INT8_TOLERANCE if int8 else EXPORT_TOLERANCE
        )
        write_golden(folder, golden)
        draft.replace(folder / GRAPH_FILE)
    finally:
        draft.unlink(missing_ok=True)
    return Exported(folder, difference)


@contextlib.contextmanager
def _saying(what: str) -> Iterator[None]:
    """Make a :class:`ModelError` of what other libraries raise, which may be of any class."""
    try:
        yield
    except (ModelError, ParityError):
        raise
    except Exception as error:
        raise ModelError(f"{what}: {error}") from error


def _copy(folder: Path, output: Path) -> Path:
    """Copy a model, but no graph; one that is there belongs to other weights."""
    for name in (GRAPH_FILE, GOLDEN_FILE):
        (output / name).unlink(missing_ok=True)
    ignored = shutil.ignore_patterns(GRAPH_FILE, GOLDEN_FILE)
    return Path(shutil.copytree(folder, output, dirs_exist_ok=True, ignore=ignored))


def _load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with _saying(f"{folder}: transformers cannot load it"):
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        return model.eval(), AutoTokenizer.from_pretrained(folder)


def _complete(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write what serving reads, from the other forms that a model may come in."""
    if not (folder / WEIGHTS_FILE).exists():
        with tempfile.TemporaryDirectory(dir=folder) as aside:  # it would write config.json too
            model.save_pretrained(aside, max_shard_size="1000GB")
            (Path(aside) / WEIGHTS_FILE).replace(folder / WEIGHTS_FILE)
    if not (folder / TOKENIZER_FILE).exists():
        with _saying(f"{folder}: no {TOKENIZER_FILE}, and none can be made"):
            tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_FILE))


def _check(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tolerance: float
) -> tuple[list[Golden], float]:
    """The golden answers, and how much those of the drafted graph differ from them.

    A text that fills the window is compared too, though not kept: a window that is larger than the
    model's would fail every long text.
    """
    window = read_model_config(folder).window
    golden = _answers(model, tokenizer, GOLDEN_TEXTS, window)
    full = _answers(model, tokenizer, [f"{GOLDEN_TEXTS[0]} " * window], window)
    with _saying(f"{folder}: the graph cannot be run"):
        drafted = SentimentClassifier(folder, backend=BackendName.ONNX, graph=DRAFT_FILE)
        return golden, max(check_golden(drafted, each, tolerance) for each in (golden, full))


def _answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], window: int
) -> list[Golden]:
    """What transformers itself answers, with none of our own code in between."""
    with _saying(f"transformers cannot answer texts of up to {window} tokens"):
        classify: Any = pipeline(
            "text-classification", model=model, tokenizer=cast("Any", tokenizer), device="cpu"
        )
        answers = [classify(text, top_k=None, truncation=True, max_length=window) for text in texts]
    return [
        Golden(text, {each["label"]: each["score"] for each in answer})
        for text, answer in zip(texts, answers, strict=True)
    ]


class _Logits(torch.nn.Module):
    """The model as a function of tensors, for the exporter."""

    def __init__(self, model: PreTrainedModel, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Logits: [texts, labels]."""
        named = dict(zip(self.names, inputs, strict=True))
        logits: torch.Tensor = self.model(**named).logits
        return logits


def _trace(model: PreTrainedModel, accepted: Sequence[str]) -> onnx.ModelProto:
    names = [name for name in INPUTS if name in accepted]
    # Two texts of different lengths: the exporter would make a constant of what does not vary.
    example = {
        "input_ids": torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "token_type_ids": torch.zeros((2, 5), dtype=torch.int64),
    }
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    with _saying("the model cannot be exported"):
        program = torch.onnx.export(
            _Logits(model, names),
            tuple(example[name] for name in names),
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=(tuple(shape for _ in names),),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ModelError("the exporter made no graph")
    graph = program.model_proto
    _strip_notes(graph.graph)
    return graph


def _strip_notes(graph: onnx.GraphProto) -> None:
    """Drop what the exporter notes of its machine: stack traces with paths, guessed types."""
    del graph.metadata_props[:], graph.value_info[:]
    for noted in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del noted.metadata_props[:]
        noted.doc_string = ""


def _share_weights(graph: onnx.GraphProto, weights: Path) -> None:
    """Let the graph's large initialisers name the stored tensors that they equal."""
    stored = _stored_tensors(weights)
    kept: list[TensorProto] = []
    restoring: list[NodeProto] = []
    shared: dict[str, TensorProto] = {}
    nodes = list(graph.node)
    for tensor in graph.initializer:
        found = stored.get(_fingerprint(numpy_helper.to_array(tensor)))
        if found is None or int(np.prod(tensor.dims)) < SHARED_ELEMENTS:
            kept.append(tensor)
            continue
        shared.setdefault(found.name, _external(found, weights.name))
        readers = [node for node in nodes if tensor.name in node.input]
        if not found.transposed and all(node.op_type == "Gather" for node in readers):
            nodes = _gather_stored(nodes, tensor.name, f"stored.{found.name}")
        else:
            restoring += _restore(found, tensor.name)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *shared.values()])
    graph.node.extend([*restoring, *nodes])


def _gather_stored(nodes: Sequence[NodeProto], name: str, stored: str) -> list[NodeProto]:
    """Read the embedding ``name`` as it is stored, and cast only the rows that a text needs.

    Cast as a whole, it would be the largest thing in memory.
    """
    changed: list[NodeProto] = []
    for node in nodes:
        changed.append(node)
        if name in node.input:
            node.input[0] = stored
            output, node.output[0] = node.output[0], f"{node.output[0]}.stored"
            changed.append(
                helper.make_node("Cast", [node.output[0]], [output], to=TensorProto.FLOAT)
            )
    return changed


def _stored_tensors(weights: Path) -> dict[str, StoredTensor]:
    """Every tensor of the file, and its transpose, by what it holds in single precision."""
    with weights.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_bytes))
    found: dict[str, StoredTensor] = {}
    for name, value in load_file(weights).items():
        entry = header[name]
        begin, end = entry["data_offsets"]
        tensor = StoredTensor(
            name, entry["dtype"], tuple(entry["shape"]), 8 + header_bytes + begin, end - begin
        )
        if tensor.dtype not in ONNX_TYPES:
            continue
        array: Array = value.float().numpy()
        found.setdefault(_fingerprint(array), tensor)
        if array.ndim == 2:
            found.setdefault(_fingerprint(array.T), replace(tensor, transposed=True))
    return found


def _fingerprint(array: npt.NDArray[np.generic]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"{array.dtype}{array.shape}{digest}"


def _external(stored: StoredTensor, location: str) -> TensorProto:
    tensor = TensorProto(
        name=f"stored.{stored.name}",
        data_type=ONNX_TYPES[stored.dtype],
        dims=stored.shape,
        data_location=TensorProto.EXTERNAL,
    )
    place = {"location": location, "offset": str(stored.offset), "length": str(stored.length)}
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _restore(stored: StoredTensor, name: str) -> list[NodeProto]:
    """Nodes that make the initialiser ``name`` of the stored tensor."""
    single = f"{name}.single" if stored.transposed else name
    nodes = [helper.make_node("Cast", [f"stored.{stored.name}"], [single], to=TensorProto.FLOAT)]
    if stored.transposed:
        nodes.append(helper.make_node("Transpose", [single], [name], perm=[1, 0]))
    return nodes


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m project.sentiment.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="local folder or Hub id")
    parser.add_argument("--revision", help="of the Hub id")
    parser.add_argument("--output", type=Path, help="folder to copy the model to first")
    parser.add_argument("--int8", action="store_true", help="in 8 bits; needs --output")
    options = parser.parse_args(argv)
    if options.int8 and options.output is None:
        parser.error("--int8 needs --output: the graph in full precision stays where it is")
    try:
        done = export(options.model, options.output, options.revision, int8=options.int8)
    except (ModelError, ParityError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    graph = done.folder / GRAPH_FILE
    print(
        f"{graph}: {graph.stat().st_size} bytes, agrees with transformers to {done.difference:.1g}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
