"""Deep Sets and the Transformers against loops over prefixes, one tuple at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.aggregators import causal_transformer, deep_sets, set_transformer
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.aggregators._layers import MultiheadAttention
from sharedlabel.aggregators._prefixes import over_prefixes
from sharedlabel.measurements import counts as cost
from sharedlabel.types import SetShape

WIDTH, CLASSES = 5, 3
SMALL: dict[str, Any] = {"width": 8, "heads": 2, "hidden": 6}


def set_shape(dtype: torch.dtype = torch.float64) -> SetShape:
    return SetShape(torch.ones(WIDTH, dtype=dtype), torch.full((WIDTH,), 2.0, dtype=dtype), torch.zeros(3, dtype=dtype))


def build(module: Any, **options: Any) -> Aggregator:
    with rng.seeded(0, "sets"):
        aggregator: Aggregator = module.build(module.Config(**options), set_shape()).double()
        with torch.no_grad():
            for parameter in aggregator.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return aggregator.eval()


def inputs(tuples: int = 3, instances: int = 5) -> tuple[Tensor, Tensor]:
    generator = rng.generator(0, "inputs")
    embeddings = torch.randn(tuples, instances, WIDTH, generator=generator, dtype=torch.float64)
    return embeddings, torch.randn(tuples, instances, CLASSES, generator=generator, dtype=torch.float64)


def features(embeddings: Tensor, logits: Tensor) -> Tensor:
    return torch.cat([(embeddings - 1) / 2, logits.log_softmax(-1)], dim=-1)


def read(rho: nn.Module, pooled: Tensor, k: int) -> Tensor:
    """The read-out of one vector and log k."""
    return rho.layers(torch.cat([pooled, torch.tensor([k]).double().log()])).log_softmax(-1)


def torch_attention(attention: MultiheadAttention) -> nn.MultiheadAttention:
    """PyTorch's own attention with the same weights."""
    width = attention.out.in_features
    theirs = nn.MultiheadAttention(width, attention.heads, batch_first=True).double().eval()
    projections = (attention.query, attention.key, attention.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in projections]))
        theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in projections]))
        theirs.out_proj.load_state_dict(attention.out.state_dict())
    return theirs


def test_attention_is_that_of_torch() -> None:
    with rng.seeded(0):
        attention = MultiheadAttention(8, 2).double().eval()
        queries, keys = torch.randn(3, 4, 8).double(), torch.randn(3, 6, 8).double()
        allowed = torch.rand(3, 4, 6) < 0.6
    allowed[..., 0] = True
    theirs = torch_attention(attention)
    sets = zip(queries, keys, allowed, strict=True)
    expected = torch.cat([theirs(q[None], k[None], k[None], attn_mask=~a)[0] for q, k, a in sets])
    torch.testing.assert_close(attention(queries, keys, allowed), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("pool", ["mean", "sum", "rsqrt"])
def test_deep_sets_equal_a_loop_over_prefixes(pool: str) -> None:
    model = build(deep_sets, hidden=6, pool=pool)
    out = model(*inputs())
    for t, rows in enumerate(features(*inputs())):
        for k in range(1, 6):
            total = sum(model.phi(row) for row in rows[:k])
            pooled = {"mean": total / k, "sum": total, "rsqrt": total / k**0.5}[pool]
            torch.testing.assert_close(out[t, k - 1], read(model.rho, pooled, k), atol=1e-9, rtol=0)


def test_set_transformer_equals_a_loop_over_prefixes_with_the_attention_of_torch() -> None:
    """Equations 6 to 8 and 11 of Lee et al., one set at a time and without any mask."""
    model = build(set_transformer, **SMALL)

    def block(layer: set_transformer.AttentionBlock, x: Tensor, y: Tensor) -> Tensor:
        h = layer.norm_attended(x + torch_attention(layer.attend)(x, y, y)[0])
        return layer.norm_fed(h + layer.feed(h).relu())

    out = model(*inputs())
    for t, rows in enumerate(features(*inputs())):
        for k in range(1, 6):
            rows_so_far = model.project(rows[:k])[None]
            for layer in model.blocks:
                rows_so_far = block(layer, rows_so_far, rows_so_far)
            pooled = block(model.pool, model.seed[None], model.before(rows_so_far).relu())[0, 0]
            torch.testing.assert_close(out[t, k - 1], read(model.rho, pooled, k), atol=1e-9, rtol=0)


def test_causal_transformer_equals_a_loop_over_instances_with_the_attention_of_torch() -> None:
    model = build(causal_transformer, **SMALL)
    out = model(*inputs())
    for t, rows in enumerate(features(*inputs())):
        tokens = model.project(rows)
        for block in model.blocks:
            attend, normed = torch_attention(block.attend), block.norm_attend(tokens)
            added = [
                attend(normed[None, k : k + 1], normed[None, : k + 1], normed[None, : k + 1])[0][0, 0] for k in range(5)
            ]
            tokens = tokens + torch.stack(added)
            tokens = tokens + block.feed(block.norm_feed(tokens))
        for k in range(1, 6):
            torch.testing.assert_close(out[t, k - 1], read(model.rho, model.norm(tokens[k - 1]), k), atol=1e-9, rtol=0)


def test_any_set_function_is_computed_per_prefix() -> None:
    """The median: no running form, and absent instances must not matter."""

    def median(sets: Tensor, present: Tensor) -> Tensor:
        return sets.masked_fill(~present[..., None], torch.nan).nanmedian(1).values

    rows = inputs(3, 7)[0]
    counts = [1, 2, 5, 7]
    out = over_prefixes(median, rows, torch.tensor(counts)[:, None])
    for index, k in enumerate(counts):
        torch.testing.assert_close(out[:, index], rows[:, :k].median(1).values)


@pytest.mark.parametrize("module", [deep_sets, set_transformer, causal_transformer])
def test_each_is_told_how_many_instances_there_are(module: Any) -> None:
    """Copies of one instance leave means and attention alone; only log k can tell them apart."""
    options = {"pool": "mean"} if module is deep_sets else {}
    embeddings, logits = inputs(1, 1)
    out = build(module, **options)(embeddings.expand(1, 4, -1), logits.expand(1, 4, -1))
    assert (out[0, 1:] - out[0, :-1]).abs().amax(-1).min() > 1e-4


@pytest.mark.parametrize("module", [set_transformer, causal_transformer])
def test_many_more_instances_do_not_blow_attention_up(module: Any) -> None:
    """What is read out after 400 instances is as large as after 4."""
    model, sizes = build(module), []
    model.rho.register_forward_pre_hook(lambda _, given: sizes.append(given[0][:, -1].norm(dim=-1).mean()))
    for instances in (4, 400):
        embeddings, logits = inputs(1, instances)
        model.last(embeddings, logits)
    assert 0.3 < sizes[1] / sizes[0] < 3


def test_set_transformer_counts_one_set_by_hand() -> None:
    """Projections, both products of attention with n keys, the pool's one query, the read-out."""
    n, w = 7, 8
    shape = set_shape(torch.float32)
    model = set_transformer.build(set_transformer.Config(**SMALL), shape)
    block = 5 * n * w * w + 2 * n * n * w  # query, key, value, out, feed
    pool = n * w * w + 2 * n * w * w + 3 * w * w + 2 * n * w  # before; key and value; query, out and feed of one seed
    expected = n * (WIDTH + CLASSES) * w + 2 * block + pool + (w + 1) * 6 + 6 * CLASSES
    assert cost.aggregator_macs(model, shape, [n]) == {n: expected}


@pytest.mark.parametrize("module", [deep_sets, set_transformer, causal_transformer])
def test_dropout_acts_in_training_only(module: Any) -> None:
    model = build(module, dropout=0.5)
    assert torch.equal(model(*inputs()), model(*inputs()))
    model.train()
    with rng.seeded(0, "dropout"):
        assert not torch.allclose(model(*inputs()), model(*inputs()))


def test_the_set_transformer_trains_on_doubled_prefixes_unless_asked_for_all() -> None:
    assert build(set_transformer).prefix_weights(6).nonzero()[:, 0].tolist() == [0, 1, 3, 5]
    assert build(set_transformer, loss="prefixes").prefix_weights(3).tolist() == pytest.approx([1 / 3] * 3)
