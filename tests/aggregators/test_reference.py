"""Aggregators against those of PyTorch Geometric, with its weights copied, where the architectures coincide."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.aggregators import attention, deep_sets, gru, lstm, set_transformer
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.aggregators._layers import MultiheadAttention
from sharedlabel.types import SetShape

TUPLES, INSTANCES, WIDTH, CLASSES = 3, 5, 4, 3


@pytest.fixture(scope="module")
def theirs() -> ModuleType:
    """The module of PyTorch Geometric's aggregators."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own use of what torch deprecates
        return importlib.import_module("torch_geometric.nn.aggr")


def build(module: Any, **options: Any) -> Aggregator:
    shape = SetShape(torch.ones(WIDTH), torch.full((WIDTH,), 2.0), torch.zeros(CLASSES))
    with rng.seeded(0, "reference"):
        aggregator: Aggregator = module.build(module.Config(**options), shape)
    return aggregator.eval()


def inputs() -> tuple[Tensor, Tensor]:
    generator = rng.generator(0, "inputs")
    return (torch.randn(TUPLES, INSTANCES, size, generator=generator) for size in (WIDTH, CLASSES))


def features() -> Tensor:
    embeddings, logits = inputs()
    return torch.cat([(embeddings - 1) / 2, logits.log_softmax(-1)], dim=-1)


def aggregate(aggregation: nn.Module, rows: Tensor, k: int) -> Tensor:
    """Apply an aggregation of theirs to the first k instances of every tuple, `[t f]`."""
    index = torch.arange(TUPLES).repeat_interleave(k)
    pooled: Tensor = aggregation.eval()(rows[:, :k].flatten(0, 1), index, dim_size=TUPLES)
    return pooled


def read(rho: nn.Module, pooled: Tensor, k: int) -> Tensor:
    counts = torch.full((TUPLES, 1), float(k)).log()
    return rho(torch.cat([pooled, counts], dim=-1)).log_softmax(-1)


def agree(aggregator: Aggregator, expected: Any) -> None:
    """Compare every prefix with `expected(k)`."""
    with torch.no_grad():
        out = aggregator(*inputs())
        for k in range(1, INSTANCES + 1):
            torch.testing.assert_close(out[:, k - 1], expected(k), atol=1e-5, rtol=0)


def test_deep_sets(theirs: ModuleType) -> None:
    model = build(deep_sets, hidden=6, pool="sum")
    aggregation = theirs.DeepSetsAggregation(local_nn=model.phi)
    agree(model, lambda k: read(model.rho.layers, aggregate(aggregation, features(), k), k))


def test_attention(theirs: ModuleType) -> None:
    class Gate(nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            return model.score(model.content(rows).tanh() * model.gate(rows).sigmoid())

    model = build(attention, attention=6, hidden=5)
    aggregation = theirs.AttentionalAggregation(gate_nn=Gate())
    agree(model, lambda k: read(model.classify, aggregate(aggregation, features(), k), k))


@pytest.mark.parametrize(("module", "name"), [(gru, "gru"), (lstm, "lstm")])
def test_recurrences(theirs: ModuleType, module: Any, name: str) -> None:
    model = build(module, hidden=6)
    kind = {"gru": theirs.GRUAggregation, "lstm": theirs.LSTMAggregation}[name]
    aggregation = kind(WIDTH + CLASSES, 6)
    getattr(aggregation, name).load_state_dict(getattr(model, name).state_dict())
    agree(model, lambda k: model.classify(aggregate(aggregation, features(), k)).log_softmax(-1))


def copy_block(ours: set_transformer.AttentionBlock, block: nn.Module) -> None:
    copy_attention(ours.attend, block.attn)
    block.lin.load_state_dict(ours.feed.state_dict())
    block.layer_norm1.load_state_dict(ours.norm_attended.state_dict())
    block.layer_norm2.load_state_dict(ours.norm_fed.state_dict())


def copy_attention(ours: MultiheadAttention, block: nn.MultiheadAttention) -> None:
    projections = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        block.in_proj_weight.copy_(torch.cat([layer.weight for layer in projections]))
        block.in_proj_bias.copy_(torch.cat([layer.bias for layer in projections]))
    block.out_proj.load_state_dict(ours.out.state_dict())


def test_set_transformer(theirs: ModuleType) -> None:
    model = build(set_transformer, width=8, heads=2, blocks=2, hidden=6)
    aggregation = theirs.SetTransformerAggregation(
        8, num_encoder_blocks=2, num_decoder_blocks=0, heads=2, layer_norm=True
    )
    for ours, block in zip(model.blocks, aggregation.encoders, strict=True):
        copy_block(ours, block.mab)
    copy_block(model.pool, aggregation.pma.mab)
    aggregation.pma.lin.load_state_dict(model.before.state_dict())
    with torch.no_grad():
        aggregation.pma.seed.copy_(model.seed[None])
    agree(model, lambda k: read(model.rho.layers, aggregate(aggregation, model.project(features()), k), k))
