"""Networks as programs on disk: written with torch.export or as ONNX, read back, compared with the network."""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from sharedlabel.aggregators._base import Aggregator
from sharedlabel.backbones._base import Backbone
from sharedlabel.deployment import _graphs
from sharedlabel.deployment._scan import with_scans
from sharedlabel.errors import DeploymentError, first_line, nearest
from sharedlabel.types import SetShape

Runtime: TypeAlias = Literal["onnx", "torch"]
Program: TypeAlias = Callable[..., tuple[Tensor, ...]]

SUFFIXES: Mapping[Runtime, str] = {"onnx": ".onnx", "torch": ".pt2"}
BACKBONE, AGGREGATOR = "backbone", "aggregator"
TOLERANCE = 1e-4  # of outputs, relative to the larger of 1 and the output: float32 sums in another order
_NAMES = {  # of the inputs and the outputs; a name of an operator ("embedding") could be taken inside the program
    BACKBONE: (["images"], ["embeddings", "logits"]),
    AGGREGATOR: (["embeddings", "logits"], ["log_posterior"]),
}


class _Embedder(nn.Module):
    """Images to embeddings and logits, in one pass."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Num[Tensor, "b C H W"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b c"]]:
        embedding = self.backbone.embed(images)
        return embedding, self.backbone.classify(embedding)


def export_backbone(backbone: Backbone, dtype: torch.dtype) -> ExportedProgram:
    """Export images `[b C H W]` -> embeddings `[b d]`, logits `[b c]`, with `b` free.

    Args:
        backbone: in evaluation mode, masks baked in.
        dtype: of the images.

    Raises:
        DeploymentError: torch.export cannot take the network.
    """
    example = torch.zeros(2, *backbone.image_shape, dtype=dtype)
    return _export(BACKBONE, _Embedder(copy.deepcopy(backbone)), (example,), ({0: Dim("b", min=1)},))


def export_aggregator(aggregator: Aggregator, shape: SetShape) -> ExportedProgram:
    """Export embeddings `[1 n d]`, calibrated logits `[1 n c]` -> log-posterior `[1 n c]`, with `n` free.

    Args:
        aggregator: in evaluation mode.
        shape: what it was built for.

    Raises:
        DeploymentError: torch.export cannot take the aggregator for any number of instances.
    """
    length = {1: Dim("n", min=1)}
    example = torch.zeros(1, 3, shape.embedding_dim), torch.zeros(1, 3, shape.num_classes)
    return _export(AGGREGATOR, with_scans(aggregator), example, (length, length))


def write(program: ExportedProgram, part: str, runtime: Runtime, folder: Path) -> Path:
    """Write a program into a folder and return its file.

    Args:
        program: what was exported.
        part: `BACKBONE` or `AGGREGATOR`.
        runtime: what is to run it.
        folder: receives the file.

    Raises:
        DeploymentError: ONNX cannot express the program, or is not installed.
    """
    path = folder / f"{part}{SUFFIXES[runtime]}"
    if runtime == "torch":
        with warnings.catch_warnings():
            # It warns where no constant of those that share storage is whole; what is read back is checked.
            warnings.filterwarnings("ignore", "No complete tensor found in the group", UserWarning)
            torch.export.save(program, path)
        return path
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        _needed(needed)
    inputs, outputs = _NAMES[part]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own use of what torch and onnxscript deprecate
            exported = torch.onnx.export(
                program, (), dynamo=True, verbose=False, input_names=inputs, output_names=outputs
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise DeploymentError(
            f"expected a network that ONNX can express, got for the {part}: {first_line(error)}; use --format torch"
        ) from error
    assert exported is not None
    exported.save(path)
    return path


def read(path: Path, files: Collection[str] = (), *, trusted: bool = False) -> Program:
    """Open a program; it takes and returns CPU tensors.

    A `.pt2` file holds pickles, and opening it runs whatever they say. An ONNX file is data: it is searched for what
    would reach outside of the model, then opened.

    Args:
        path: a file that `write` made.
        files: names of the files beside it that its weights may lie in.
        trusted: whether the file may run code.

    Raises:
        DeploymentError: its runtime is not installed, or cannot read it, or it would have to be trusted.
    """
    if path.suffix != SUFFIXES["onnx"] and not trusted:
        raise DeploymentError(
            f"expected an ONNX program, got {path}, and opening a {path.suffix} file runs any code that is in it; "
            "export the cell with --format onnx, or add --trust (trust=True) if you know who wrote it"
        )
    try:
        return _read_onnx(path, files) if path.suffix == SUFFIXES["onnx"] else _read_torch(path)
    except (RuntimeError, ValueError, OSError) as error:
        raise DeploymentError(
            f"expected a program at {path}, got: {first_line(error)}; export the cell again"
        ) from error


def runtime_named(name: str) -> Runtime:
    """Return a runtime by its name.

    Raises:
        DeploymentError: there is no such runtime.
    """
    for runtime in SUFFIXES:
        if runtime == name:
            return runtime
    raise DeploymentError(f"unknown runtime {name!r}; {nearest(name, SUFFIXES)}")


@torch.no_grad()
def difference(program: Program, network: Callable[..., Any], inputs: Iterable[tuple[Tensor, ...]]) -> float:
    """Return the largest difference of a program's outputs from a network's.

    Args:
        program: what was written.
        network: what it was made from.
        inputs: some of several sizes.

    Returns:
        Difference relative to the larger of 1 and the output; infinite if an output is NaN or of another shape.
    """
    worst = 0.0
    for given in inputs:
        for got, expected in zip(program(*given), _tuple(network(*given)), strict=True):
            if got.shape != expected.shape:
                return float("inf")
            gap = ((got - expected).abs() / expected.abs().clamp_min(1)).max()
            worst = max(worst, float(gap.nan_to_num(torch.inf)))
    return worst


def check(path: Path, network: nn.Module, inputs: Iterable[tuple[Tensor, ...]]) -> float:
    """Read a program back, require it to agree with its network, and return the largest difference.

    Raises:
        DeploymentError: it differs by more than `TOLERANCE`.
    """
    part = path.stem
    reference = _Embedder(network) if isinstance(network, Backbone) else network
    own = read(path, [file.name for file in path.parent.iterdir()], trusted=True)  # it was written a moment ago
    worst = difference(own, reference, inputs)
    if not worst <= TOLERANCE:
        raise DeploymentError(
            f"expected {path.name} to agree with PyTorch within {TOLERANCE:g}, got a difference of {worst:.3g} in the "
            f"{part}; nothing was written, try the other --format and another version of onnxruntime or torch"
        )
    return worst


def _export(part: str, network: nn.Module, example: tuple[Tensor, ...], shapes: Any) -> ExportedProgram:
    frozen = network.eval().requires_grad_(False)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.export's own use of what torch deprecates
            program = torch.export.export(frozen, example, dynamic_shapes=shapes)
    except Exception as error:  # it answers with errors of every kind, from UserError to TypeError
        raise DeploymentError(
            f"expected a network that torch.export can take, got for the {part}: {first_line(error)}; "
            "avoid Python loops over instances and branches on values"
        ) from error
    _forget_sources(program)
    return program


def _forget_sources(program: ExportedProgram) -> None:
    """Remove from every node the source lines it comes from: they name folders of this machine."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, GraphModule) else ():
            node.meta.pop("stack_trace", None)


def _read_torch(path: Path) -> Program:
    with warnings.catch_warnings():
        # torch 2.11 wraps the bytes of the file without a copy and warns of itself; nothing writes to them.
        warnings.filterwarnings("ignore", message="The given buffer is not writable", category=UserWarning)
        try:
            module = torch.export.load(path).module()
        except Exception as error:  # of zip files, JSON, pickles and torch
            raise RuntimeError(first_line(error)) from error

    @torch.no_grad()
    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        return _tuple(module(*inputs))

    return _running(run, path)


def _read_onnx(path: Path, files: Collection[str]) -> Program:
    runtime = _needed("onnxruntime")
    _graphs.check(path, files, _needed("onnx"))
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # nothing but the end of the process: errors are raised, too
    try:
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no base class
        raise RuntimeError(first_line(error)) from error
    inputs, outputs = ([one.name for one in ends] for ends in (session.get_inputs(), session.get_outputs()))
    if (inputs, outputs) != _NAMES.get(path.stem, (inputs, outputs)):
        raise ValueError(f"a program of {', '.join(inputs)} -> {', '.join(outputs)}")

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        values = {name: tensor.numpy() for name, tensor in zip(inputs, given, strict=True)}
        return tuple(torch.from_numpy(output) for output in session.run(None, values))

    return _running(run, path)


def _running(program: Program, path: Path) -> Program:
    """Say which file it is that fails on an input."""

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        try:
            return program(*inputs)
        except Exception as error:  # the errors of both runtimes share no base class
            taken = ", ".join(f"{str(one.dtype).removeprefix('torch.')} {list(one.shape)}" for one in inputs)
            raise DeploymentError(
                f"expected {path} to take inputs of {taken}, as the card says, got: {first_line(error)}; export the "
                "cell again"
            ) from error

    return run


def _needed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DeploymentError(
            f"expected the package {name}, got: {error}; run `pip install sharedlabel[export]`, or use torch instead "
            "(--format torch, then --runtime torch --trust)"
        ) from error


def _tuple(outputs: Any) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
