"""What a network costs: parameters, MACs, bytes.

MACs (multiply-accumulates) are those of matrix products and convolutions, padding included, counted analytically for
one instance; biases, normalisation, activations and other elementwise work are not counted, nor is what
butterfly layers do once per batch, whatever its size: multiplying their paths out.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import pickle
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sharedlabel.aggregators._base import Aggregator
from sharedlabel.backbones import _butterfly, _packed
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._masking import MASK, count_parameters, masked_weights
from sharedlabel.backbones._restore import state
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._masks import bake, check_removed, collapsed_layers, kept, masked, prunable, removed
from sharedlabel.records import NetworkCosts
from sharedlabel.store import serialize
from sharedlabel.types import SetShape

_FLOAT32_BYTES = 4
_OURS = ("sharedlabel.", "torch.")  # modules whose classes hide no work from who counts
# Names in `torch.ops.aten` of products without a formula in torch: of matrices and vectors, nn.Bilinear, torch.cdist,
# solvers and decompositions, low precision. Others are elementwise, reduce, move values or become what is counted.
_WITHOUT_FORMULA = re.compile(
    r"_trilinear|(add)?mv|v?dot|addr|addbmm|conv_tbc|_cdist_forward|_addmm_activation"
    r"|_(int|grouped|scaled_grouped|foreach)_mm|_?linalg_(?!vector_norm|cross).*|cholesky_.*|triangular_solve"
)
Network = TypeVar("Network", bound=nn.Module)
Counted: TypeAlias = dict[tuple[Any, ...], int]


@dataclass(frozen=True)
class Macs:
    """MACs of one pass over one instance.

    Attributes:
        executed: what dense kernels execute; masked weights count.
        effective: what is left when masked weights cost nothing: each layer's MACs times its density.
    """

    executed: int
    effective: float


@dataclass(frozen=True)
class Bytes:
    """Size of a network's tensors, floating-point values in 32 bits.

    Attributes:
        dense: every value stored, pruned ones included; masks are not.
        sparse: of masked weights only the values left and one bit per weight that says where they are.
    """

    dense: int
    sparse: int


def parameters(network: nn.Module) -> int:
    """Count the parameters left: masked weights and buffers are not counted.

    Raises:
        CompressionError: a masked weight is not zero.
    """
    check_removed(network)
    return count_parameters(network) - removed(network)


def macs(backbone: Backbone, image_shape: tuple[int, int, int]) -> Macs:
    """Count the MACs of classifying one image.

    Args:
        backbone: the network, with or without masks; it is not run.
        image_shape: channels, height and width of an image.

    Raises:
        CompressionError: it multiplies matrices by an operation that has no formula.
    """
    copied = _on_meta(backbone)
    weights = [place.weight for place in masked_weights(copied)]
    bake(copied)  # with a mask it is not the stored tensor that enters products, but a new one
    counted = _count(copied, torch.empty(1, *image_shape, device="meta"))
    pruned = (
        counted.of(weight) * int((mask == 0).sum()) / mask.numel()
        for weight, (_, _, mask) in zip(weights, masked(backbone), strict=True)
    )
    return Macs(counted.total, float(counted.total) - sum(pruned))


def aggregator_macs(
    aggregator: Aggregator, shape: SetShape, n_list: Iterable[int], known: Counted | None = None
) -> dict[int, int]:
    """Count the MACs of an aggregator's posterior after all instances of one tuple.

    Most aggregators pass through every shorter prefix on the way, and that is included; what `Aggregator.last` leaves
    out is not.

    Args:
        aggregator: the aggregator; a copy of it is run, on a tuple of zeros or of no values at all.
        shape: embedding width and number of classes.
        n_list: tuple sizes, instances.
        known: counts of aggregators of the same structure, which are not counted again; what is counted is added.

    Returns:
        MACs by tuple size.
    """
    return _by_size(aggregator, "last", shape, n_list, known)


def anytime_macs(
    aggregator: nn.Module, shape: SetShape, n_list: Iterable[int], known: Counted | None = None
) -> dict[int, int]:
    """Count the MACs of the posteriors after every one of n instances, as someone needs them who may stop early.

    Args:
        aggregator: the aggregator; a copy of it is run, on a tuple of zeros or of no values at all.
        shape: embedding width and number of classes.
        n_list: numbers of instances.
        known: as for `aggregator_macs`.

    Returns:
        MACs by number of instances.
    """
    return _by_size(aggregator, "__call__", shape, n_list, known)


@contextlib.contextmanager
def plain_kernels() -> Iterator[None]:
    """Keep torch from fused kernels, whose MACs have no formula; for counting on tensors that hold values."""
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None), sdpa_kernel(SDPBackend.MATH):
        yield


def call_macs(function: Callable[..., Tensor], *inputs: Tensor) -> int:
    """Count the MACs of one call of a network, or of one of its methods; on the meta device nothing is computed.

    Args:
        function: what is called; products of parameters count only where they require a gradient.
        inputs: tensors on the device of the parameters.
    """
    return _count(function, *inputs).total


def _by_size(
    aggregator: nn.Module,
    method: str,
    shape: SetShape,
    n_list: Iterable[int],
    known: Counted | None,
) -> dict[int, int]:
    """Count the MACs of one call of a method of an aggregator, on one tuple of each size.

    Where a grid counts, aggregators of this package compute it: the meta device, whose operations are written in
    Python, takes ten times as long. All others are run there, where no values can be worked on in secret, as by numpy.
    """
    structure = None if known is None else _structure(_on_meta(aggregator))
    counted: Counted = {} if known is None or structure is None else known
    network: nn.Module | None = None
    own = known is not None and all(type(one).__module__.startswith(_OURS) for one in aggregator.modules())
    macs_of = {}
    for n in n_list:
        key = (*(structure or ()), method, shape.embedding_dim, shape.num_classes, n)
        if key not in counted:
            network = network or (_computing if own else _on_meta)(aggregator)
            device = "cpu" if own else "meta"
            inputs = (torch.zeros(1, n, width, device=device) for width in (shape.embedding_dim, shape.num_classes))
            with plain_kernels():
                counted[key] = call_macs(getattr(network, method), *inputs)
        macs_of[n] = counted[key]
    return macs_of


def _structure(network: nn.Module) -> tuple[str, frozenset[type[nn.Module]]] | None:
    """Return what the operations of a network without values depend on: a digest of its attributes, and its classes.

    None if it cannot be pickled, as a class within a function, a lambda or a parametrised layer.
    """
    try:
        attributes = pickle.dumps(network)
    except Exception:  # a module may raise anything here; it is counted every time then
        return None
    return hashlib.sha256(attributes).hexdigest(), frozenset(type(module) for module in network.modules())


class Eager(TorchDispatchMode):
    """A mode that is never compiled: torch need not import its compiler, which takes a second, to keep out of it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class _Products(Eager):
    """Adds up the MACs of matrix products and convolutions, in all and by the stored tensor that enters them.

    Attention, for one, uses the weight of its output layer without calling the layer, so that counting by layer would
    miss what a mask on it saves.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self._by_storage: Counter[int] = Counter()

    def of(self, tensor: Tensor) -> int:
        """Return the MACs of the products that a tensor, or a view of it, enters."""
        return self._by_storage[tensor.untyped_storage()._cdata]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        del types
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is None:
            _check_free(func.overloadpacket)
        else:
            macs = count(*args, **(kwargs or {}), out_val=out) // 2
            self.total += macs
            self._by_storage.update({a.untyped_storage()._cdata: macs for a in args if isinstance(a, Tensor)})
        return out


def _check_free(operation: Any) -> None:
    """Refuse an operation that multiplies but would be counted as free."""
    name = operation.__name__.removesuffix("_")  # in place
    if _WITHOUT_FORMULA.fullmatch(name) or getattr(torch.ops.aten, name, None) in flop_registry:
        raise CompressionError(
            f"expected operations whose MACs can be counted, got {operation}, which multiplies matrices or vectors but "
            "has no formula; write it with matmul of matrices, linear or convolution layers"
        )


def _computing(network: Network) -> Network:
    """Copy a network to the CPU, as `_on_meta` does to the meta device."""
    return copy.deepcopy(network).cpu().float().eval().requires_grad_(True)


def _on_meta(network: Network) -> Network:
    """Copy a network to the meta device, where nothing is computed.

    There, fused kernels that have no formula (recurrent, attention) are replaced by the products they are made of. With
    gradients on, attention layers do not take their fused inference path, which would go uncounted.
    """
    return copy.deepcopy(network).to("meta").float().eval().requires_grad_(True)


def _count(function: Callable[..., Tensor], *inputs: Tensor) -> _Products:
    """Return the MACs of one call of a network, or of one of its methods."""
    counted = _Products()
    with torch.enable_grad(), counted:
        function(*inputs)
    return counted


def bytes_on_disk(network: nn.Module) -> Bytes:
    """Size the parameters and buffers of a network."""
    tensors = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(MASK)}
    dense = sum(t.numel() * (_FLOAT32_BYTES if t.is_floating_point() else t.element_size()) for t in tensors.values())
    bitmasks = sum((mask.numel() + 7) // 8 for _, _, mask in masked(network))
    return Bytes(dense, dense - _FLOAT32_BYTES * removed(network) + bitmasks)


def file_bytes(network: Backbone) -> Bytes:
    """Size the files of a network, written by the store: headers included, values in the network's own precision."""
    tensors = state(network)
    plain = {name: tensor for name, tensor in tensors.items() if not name.endswith(MASK)}
    return Bytes(len(serialize(plain)), len(serialize(_packed.pack(tensors))))


def costs(dense: Backbone, pruned: Backbone, image_shape: tuple[int, int, int]) -> NetworkCosts:
    """Compare a pruned network with the dense one.

    Args:
        dense: the network before pruning.
        pruned: the network after it, masks not yet baked in.
        image_shape: channels, height and width of an image.

    Raises:
        CompressionError: a masked weight is not zero, or the network cannot be counted.
    """
    weights, weights_left = _prunable_left(dense), _prunable_left(pruned)
    total, left = parameters(dense), parameters(pruned)
    before, after = macs(dense, image_shape), macs(pruned, image_shape)
    size = bytes_on_disk(pruned)
    return NetworkCosts(
        parameters_dense=total,
        parameters=left,
        achieved_ratio=total / left,
        prunable_ratio=weights / weights_left if weights else 1.0,
        sparsity=1 - weights_left / weights if weights else 0.0,
        macs_dense=before.executed,
        macs_executed=after.executed,
        macs_effective=after.effective,
        theoretical_speedup=before.executed / after.effective,
        bytes_dense=size.dense,
        bytes_sparse=size.sparse,
        collapsed_layers=",".join(collapsed_layers(pruned)),
        densest_layer_share=_densest(dense, pruned),
    )


def _densest(dense: Backbone, pruned: Backbone) -> float:
    """Return the largest share of weights left in a prunable layer; 1 where no such layer is left."""
    left = {name: int(mask.count_nonzero()) for name, mask in kept(pruned).items()}
    whole = {name: place.weight.numel() for name, place in prunable(dense).items()}
    return max((left[name] / count for name, count in whole.items() if name in left), default=1.0)


def _prunable_left(backbone: Backbone) -> int:
    """Count the prunable weights that no mask removes, those of butterfly layers included."""
    dense = sum(place.weight.numel() for place in prunable(backbone).values())
    return dense + _butterfly.weights(backbone) - removed(backbone)
