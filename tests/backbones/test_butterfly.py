from __future__ import annotations

import copy
import importlib.util
import io
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sharedlabel import rng
from sharedlabel.backbones import _butterfly
from sharedlabel.backbones._butterfly import ButterflyLinear, unfold
from sharedlabel.backbones._butterfly_network import Butterfly
from sharedlabel.backbones._butterfly_paths import depth, draw_order, weight_counts
from sharedlabel.errors import CompressionError

SIZES = [(2, 1), (2, 2), (3, 1), (5, 4), (8, 3), (8, 8), (13, 5), (13, 13), (20, 9)]
WORKER = Path(__file__).parent / "fused_worker.py"


def network(width: int, k: int, cut: int | None = None, seed: int = 0) -> Butterfly:
    """Return a network of the first k outputs of a random order, with normal weights, in double precision."""
    generator = rng.generator(seed, "butterfly", width)
    butterfly = Butterfly(width, draw_order(width, generator)[:k], generator, cut).double()
    nn.init.normal_(butterfly.weights, generator=generator)
    return butterfly


def layer(
    n1: int, n2: int, k1: int | None = None, k2: int | None = None, seed: int = 0, **options: bool
) -> ButterflyLinear:
    return ButterflyLinear(n1, n2, k1, k2, generator=rng.generator(seed, "layer"), **options)


def edges_on_paths(width: int, kept: list[int]) -> list[list[tuple[int, int]]]:
    """List, by stage, the edges (from, to) of definition 4.1 that lie on a path from an input to a kept output."""
    stages = depth(width)
    reached = [set(range(width))]
    for stage in range(stages):
        reached.append({node ^ flip for node in reached[-1] for flip in (0, 1 << stage)})
    needed = [set(kept)]
    for stage in reversed(range(stages)):
        needed.insert(0, {node ^ flip for node in needed[0] for flip in (0, 1 << stage)})
    return [
        [
            (start, start ^ flip)
            for start in sorted(reached[stage] & needed[stage])
            for flip in (0, 1 << stage)
            if start ^ flip in needed[stage + 1]
        ]
        for stage in range(stages)
    ]


def explicit_matrix(butterfly: Butterfly) -> torch.Tensor:
    """Multiply the stages as sparse matrices written node by node; `weights` are laid out as the paths file says."""
    width, kept = int(butterfly.width), butterfly.kept.tolist()
    padded, values, used = 2 ** depth(width), butterfly.weights, 0
    product = torch.eye(padded, dtype=values.dtype)
    for stage, edges in enumerate(edges_on_paths(width, kept)):
        residues = sorted({end % 2 ** (stage + 1) for _, end in edges}, key=lambda r: f"{r:0{stage + 1}b}"[::-1])
        columns = -(-width // 2**stage)
        matrix = torch.zeros(padded, padded, dtype=values.dtype)
        for start, end in edges:
            place = residues.index(end % 2 ** (stage + 1)) * columns + start // 2**stage
            matrix[end, start] = values[used + place]
        used += len(edges)
        product = matrix @ product
    assert used == len(values)
    return product[kept, :width]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_is_the_butterfly_network_written_node_by_node(data: st.DataObject) -> None:
    width = data.draw(st.integers(2, 24))
    butterfly = network(width, data.draw(st.integers(1, width)), seed=data.draw(st.integers(0, 99)))
    torch.testing.assert_close(butterfly.matrix(), explicit_matrix(butterfly))


@pytest.mark.parametrize(("width", "k"), SIZES)
def test_applies_its_matrix_however_it_is_cut(width: int, k: int) -> None:
    for cut in range(1, depth(width) + 1):
        butterfly = network(width, k, cut)
        inputs, outputs, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((4, width), (4, k), (width,)))
        torch.testing.assert_close(butterfly(inputs), inputs @ butterfly.matrix().T)
        torch.testing.assert_close(butterfly.transposed(outputs), outputs @ butterfly.matrix())
        torch.testing.assert_close(butterfly.transposed(outputs, bias), outputs @ butterfly.matrix() + bias)


def test_is_cut_where_that_takes_fewer_products() -> None:
    assert network(512, 9).cut == 9
    assert network(1024, 512).cut < 10
    with rng.seeded(0):
        inputs, outputs = torch.randn(3, 1000, dtype=torch.float64), torch.randn(3, 500, dtype=torch.float64)
    butterfly = network(1000, 500)
    assert butterfly.cut < 10
    torch.testing.assert_close(butterfly(inputs), inputs @ butterfly.matrix().T)
    torch.testing.assert_close(butterfly.transposed(outputs), outputs @ butterfly.matrix())


@pytest.mark.parametrize(("width", "k"), SIZES)
def test_every_weight_influences_the_output_and_none_is_missing(width: int, k: int) -> None:
    butterfly = network(width, k)
    assert len(butterfly.weights) == sum(map(len, edges_on_paths(width, butterfly.kept.tolist())))
    butterfly.matrix().square().sum().backward()
    assert butterfly.weights.grad is not None
    assert butterfly.weights.grad.all()


@pytest.mark.parametrize("width", [2, 3, 8, 13, 16, 21])
def test_weights_are_counted_for_every_k(width: int) -> None:
    order = draw_order(width, rng.generator(0, "order"))
    counted = [sum(map(len, edges_on_paths(width, order[:k].tolist()))) for k in range(1, len(order) + 1)]
    assert weight_counts(width, order).tolist() == counted
    if width == 2 ** depth(width):
        assert all(count <= 2 * width * math.log2(k) + 6 * width for k, count in enumerate(counted, 1))
        assert counted[-1] == 2 * width * depth(width)


def test_layer_of_512_has_about_7400_weights() -> None:
    """The paper's bound is 2 (2 n log2 k + 6 n) + k^2 = 12,717; how many there are depends on the outputs drawn."""
    counts = [_butterfly.weights(layer(512, 512, bias=False, seed=seed)) for seed in range(100)]
    assert max(counts) <= 2 * (2 * 512 * math.log2(9) + 6 * 512) + 81
    assert abs(sum(counts) / 100 - 7417) < 4 * 380 / 10
    assert min(counts) < 7000


def test_layer_of_4096_has_less_than_half_a_percent_of_the_weights() -> None:
    assert _butterfly.weights(layer(4096, 4096, bias=False)) / 4096**2 < 0.005


@pytest.mark.parametrize("width", [2, 8, 32])
def test_starts_orthonormal_before_truncation_and_scaled_after(width: int) -> None:
    order = draw_order(width, rng.generator(1, "order"))
    full = Butterfly(width, order, rng.generator(0, "signs")).double().matrix()
    torch.testing.assert_close(full @ full.T, torch.eye(width, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    k = width // 2
    truncated = Butterfly(width, order[:k], rng.generator(0, "signs")).double()
    rows = [Butterfly(width, order, rng.generator(0, "signs")).kept.tolist().index(j) for j in truncated.kept.tolist()]
    torch.testing.assert_close(truncated.matrix(), full[rows] * math.sqrt(width / k), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("width", "k"), [(64, 6), (50, 12)])
def test_squared_norms_are_kept_on_average(width: int, k: int) -> None:
    generator = rng.generator(0, "norms")
    spread, spike = torch.randn(width, generator=generator), nn.functional.one_hot(torch.tensor(3), width).float()
    matrices = torch.stack(
        [Butterfly(width, draw_order(width, generator)[:k], generator).matrix().detach() for _ in range(200)]
    )
    for vector in (spread, torch.ones(width)):
        norms = (matrices @ vector).square().sum(1) / vector.square().sum()
        assert abs(norms.mean() - 1) < 4 * norms.std() / math.sqrt(200)
    torch.testing.assert_close((matrices @ spike).square().sum(1), torch.ones(200), rtol=1e-5, atol=1e-5)


def test_outputs_start_with_the_variance_of_a_dense_layers() -> None:
    inputs = torch.randn(256, 200, generator=rng.generator(0, "inputs"))
    variance = torch.stack([layer(200, 100, seed=seed)(inputs).var() for seed in range(60)]).mean()
    with rng.seeded(0):
        dense = nn.Linear(200, 100)(inputs).var()
    assert float((variance / dense).detach()) == pytest.approx(1, abs=0.15)


def test_subset_is_uniform_and_follows_the_generator() -> None:
    before = torch.random.get_rng_state()
    one, same, other = layer(30, 20, 4, 3), layer(30, 20, 4, 3), layer(30, 20, 4, 3, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one.state_dict()[key], same.state_dict()[key]) for key in one.state_dict())
    assert not torch.equal(one.inputs.kept, other.inputs.kept)
    generator = rng.generator(0, "draws")
    kept = torch.cat([draw_order(16, generator)[:4] for _ in range(2000)]).bincount(minlength=16)
    assert float(((kept - 500) ** 2 / 500).sum()) < 38  # chi-squared, 15 degrees of freedom: 99.9% quantile 37.7


@pytest.mark.parametrize(("n1", "n2", "bias"), [(6, 10, True), (8, 4, False), (17, 2, True)])
def test_computes_the_dense_weight(n1: int, n2: int, bias: bool) -> None:
    butterfly = layer(n1, n2, bias=bias)
    inputs = torch.randn(2, 3, n1)
    expected = nn.functional.linear(inputs, butterfly.dense_weight(), butterfly.bias)
    outputs = butterfly(inputs)
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    assert outputs.is_contiguous()
    left, right = explicit_matrix(butterfly.outputs), explicit_matrix(butterfly.inputs)
    torch.testing.assert_close(butterfly.dense_weight(), left.T @ butterfly.core @ right)


@pytest.mark.parametrize("cut", [2, 3])
def test_gradients(cut: int) -> None:
    butterfly = layer(5, 6, 3, 4).double()
    butterfly.inputs = Butterfly(5, butterfly.inputs.kept, cut=cut).double()
    butterfly.outputs = Butterfly(6, butterfly.outputs.kept, cut=cut).double()
    names = [name for name, _ in butterfly.named_parameters()]

    def call(inputs: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        outputs = torch.func.functional_call(butterfly, dict(zip(names, values, strict=True)), (inputs,))
        assert isinstance(outputs, torch.Tensor)
        return outputs

    inputs = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    values = [nn.init.normal_(parameter.detach().clone()).requires_grad_() for parameter in butterfly.parameters()]
    assert torch.autograd.gradcheck(call, (inputs, *values))
    assert torch.autograd.gradgradcheck(call, (inputs, *values), fast_mode=True)


def test_project_is_the_least_squares_fit() -> None:
    butterfly = layer(8, 6, 3, 4).double()
    weight = torch.randn(6, 8, dtype=torch.float64)
    butterfly.project(weight)
    design = torch.kron(butterfly.outputs.matrix().T.contiguous(), butterfly.inputs.matrix().T.contiguous()).detach()
    best = torch.linalg.lstsq(design, weight.reshape(-1, 1)).solution.view(4, 3)
    torch.testing.assert_close(butterfly.core.detach(), best)


def test_project_is_the_papers_up_to_scale_and_exact_without_truncation() -> None:
    weight = torch.randn(16, 8, dtype=torch.float64)
    butterfly = layer(8, 16, 3, 4).double()
    butterfly.project(weight)
    papers = butterfly.outputs.matrix() @ weight @ butterfly.inputs.matrix().T
    torch.testing.assert_close(butterfly.core, papers * (3 * 4) / (8 * 16), rtol=1e-5, atol=1e-5)
    full = layer(8, 16, 8, 16).double()
    full.project(weight)
    torch.testing.assert_close(full.dense_weight(), weight, rtol=1e-5, atol=1e-5)


def test_state_brings_its_own_subset() -> None:
    """Layers with other subsets have other numbers of weights, so a second one with as many is looked for."""
    one = layer(12, 7, 3, 3)
    shapes = [value.shape for value in one.parameters()]
    layers = (layer(12, 7, 3, 3, seed=seed) for seed in range(1, 1000))
    other = next(layer for layer in layers if [value.shape for value in layer.parameters()] == shapes)
    inputs = torch.randn(5, 12)
    assert not torch.equal(one.inputs.kept, other.inputs.kept)
    assert not torch.allclose(one(inputs), other(inputs))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(inputs), other(inputs))


def test_rebuilt_from_a_state() -> None:
    original = nn.Sequential(layer(30, 20), nn.ReLU(), layer(20, 9, bias=False))
    rebuilt = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 9))
    _butterfly.rebuild(rebuilt, original.state_dict())
    rebuilt.load_state_dict(original.state_dict())
    inputs = torch.randn(4, 30)
    assert torch.equal(rebuilt(inputs), original(inputs))


def test_copies_pickles_and_exports() -> None:
    butterfly = layer(20, 300, 6, 200).eval()
    assert butterfly.outputs.cut < butterfly.outputs.depth  # both forms are exported
    inputs = torch.randn(3, 20)
    buffer = io.BytesIO()
    torch.save(butterfly, buffer)
    buffer.seek(0)
    for other in (
        copy.deepcopy(butterfly),
        pickle.loads(pickle.dumps(butterfly)),
        torch.load(buffer, weights_only=False),
    ):
        assert torch.equal(other(inputs), butterfly(inputs))
    exported = torch.export.export(butterfly, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    more = torch.randn(5, 20)
    torch.testing.assert_close(exported(more), butterfly(more))


@pytest.mark.parametrize("k", [None, 60])
def test_autocast(k: int | None) -> None:
    butterfly = layer(64, 64, k, k)
    inputs = torch.randn(8, 64)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = butterfly(inputs)
    outputs.float().square().sum().backward()
    assert outputs.dtype == torch.bfloat16
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in butterfly.parameters())
    torch.testing.assert_close(outputs.float(), butterfly(inputs), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("n1", "n2", "k"), [(1, 8, 1), (8, 1, 1), (0, 3, None), (3, 0, None), (1, 8, None)])
def test_widths_below_two_are_refused(n1: int, n2: int, k: int | None) -> None:
    with pytest.raises(CompressionError, match=f"got a butterfly width of {min(n1, n2)}; keep this layer dense"):
        ButterflyLinear(n1, n2, k, k)


@pytest.mark.parametrize("k", [0, 9, -1])
def test_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(CompressionError, match=f"expected a whole number k from 1 to 8.*got k={k}"):
        ButterflyLinear(8, 16, k)


def test_k_that_is_no_whole_number_is_refused_without_type_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(CompressionError, match=r"expected a whole number k from 1 to 8.*got k=2\.5"):
        ButterflyLinear(8, 16, 2.5)  # type: ignore[arg-type]


def run_worker(device: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, str(WORKER), device],
        env={**os.environ, "PYTHONPATH": str(WORKER.parents[2]), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "same\n"


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="Triton is not installed")
def test_fused_kernel_in_the_interpreter() -> None:
    run_worker("cpu", TRITON_INTERPRET="1")


@pytest.mark.skipif(
    not (torch.cuda.is_available() and importlib.util.find_spec("triton")), reason="needs a CUDA device and Triton"
)
def test_fused_kernel_on_the_gpu() -> None:
    run_worker("cuda")


@pytest.mark.parametrize(
    ("width_in", "width_out", "k_in", "k_out", "layers"),
    [(16, 12, 3, 4, 2), (12, 16, 4, 3, 2), (7, 9, 2, 2, 2), (8, 8, 8, 8, 1), (5, 3, 1, 3, 2)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_plain_layers_compute_the_same(
    width_in: int, width_out: int, k_in: int, k_out: int, layers: int, bias: bool
) -> None:
    layer = ButterflyLinear(width_in, width_out, k_in, k_out, bias, rng.generator(0)).double()
    plain = layer.plain()
    linear = [module for module in plain.modules() if isinstance(module, nn.Linear)]
    assert len(linear) == layers
    assert (linear[-1].bias is not None) == bias
    images = torch.randn(6, width_in, generator=rng.generator(1), dtype=torch.float64)
    torch.testing.assert_close(plain(images), layer(images))
    assert sum(one.weight.numel() for one in linear) <= width_in * width_out


def test_unfolding_replaces_every_butterfly_in_its_place() -> None:
    network = nn.Sequential(
        nn.Linear(6, 8), nn.Sequential(ButterflyLinear(8, 4, generator=rng.generator(0)), nn.ReLU())
    )
    images = torch.randn(3, 6, generator=rng.generator(1))
    expected = network(images)
    unfold(network)
    assert not any(isinstance(module, ButterflyLinear) for module in network.modules())
    torch.testing.assert_close(network(images), expected)
