"""What an ONNX file may hold before a runtime opens it: operators of ONNX, weights in files of the model.

A runtime reads what the file names: weights anywhere on the machine, contexts of other libraries, loops without end.
Exported models need none of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

_LARGEST = 2**31 - 1  # bytes of a protobuf message
_NODES = 20_000  # the largest networks of torchvision have a tenth
_DOMAINS = ("", "ai.onnx")
_REFUSED = {  # operators of these domains
    "Loop": "runs as often as the file says",
    "SequenceMap": "runs a graph of its own",
    "ImageDecoder": "decodes images in formats of its choice",
}


def check(path: Path, files: Collection[str], onnx: Any) -> None:
    """Require an ONNX file to be no more than a network of standard operators.

    Args:
        path: the file.
        files: names of the model's files; weights may lie in them.
        onnx: the package.

    Raises:
        ValueError: it is no ONNX file, or holds something else.
    """
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"a file of more than {_LARGEST:,} bytes")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # of protobuf, which share no base class with others
        raise ValueError(f"no ONNX file ({error})") from error
    if model.functions or model.training_info:
        raise ValueError("functions or training steps of the file's own")
    nodes = 0
    for graph, scanned in _graphs(model.graph):
        nodes += len(graph.node)
        if nodes > _NODES:
            raise ValueError(f"more than {_NODES:,} operators")
        for node in graph.node:
            _check_operator(node, scanned)
        for tensor in _tensors(graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                _check_place(tensor, files, path.parent)


def _graphs(whole: Any) -> Iterator[tuple[Any, bool]]:
    """Yield a graph and all inside it, and whether a scan repeats them."""
    waiting = [(whole, False)]
    while waiting:
        graph, scanned = waiting.pop()
        yield graph, scanned
        for node in graph.node:
            for attribute in node.attribute:
                inner = [attribute.g] if attribute.HasField("g") else []
                waiting += [(one, scanned or node.op_type == "Scan") for one in (*inner, *attribute.graphs)]


def _check_operator(node: Any, scanned: bool) -> None:
    if node.domain not in _DOMAINS:
        raise ValueError(f"the operator {node.op_type!r} of {node.domain!r}, which is none of ONNX's own")
    if node.op_type in _REFUSED:
        raise ValueError(f"the operator {node.op_type!r}, which {_REFUSED[node.op_type]}")
    if scanned and node.op_type == "Scan":
        raise ValueError("a scan inside a scan, which may run without end")


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    sparse = list(graph.sparse_initializer)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
    for tensor in sparse:
        yield from (tensor.values, tensor.indices)


def _check_place(tensor: Any, files: Collection[str], folder: Path) -> None:
    places = [entry.value for entry in tensor.external_data if entry.key == "location"]
    if len(places) != 1 or places[0] not in files:
        raise ValueError(f"weights in {', '.join(map(repr, places)) or 'no file'}, which is no file on the card")
    stated = {entry.key: entry.value for entry in tensor.external_data}
    offset, length = (stated.get(key, "0") for key in ("offset", "length"))
    held = (folder / places[0]).stat().st_size
    whole = all(text.isdecimal() and len(text) < 20 for text in (offset, length))
    if not whole or int(offset) + int(length) > held:
        raise ValueError(f"weights from byte {offset} on, {length} of them, in {places[0]!r}, which has {held}")
