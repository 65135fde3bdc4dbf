"""The smallest grid that has everything a run needs, as arguments; those that follow them win."""

from __future__ import annotations

SMALLEST = (
    "--data={name: gaussian, classes: 3, dim: 4, instances_per_class: 48, label: tiny}",
    "--backbones=[{name: mlp, label: mlp, widths: [8]}]",
    "--pruners=[magnitude]",
    "--ratios=[1, 2]",
    "--comparison.reference=log_pool",
    "--retrain.epochs=0",
    "--evaluation.n=[1, 2]",
    "--evaluation.partitions=2",
    "--sweet_spot.replicates=5",
    "--latency.batches=[1]",
    "--latency.repeats=2",
    "--margin.epsilons=[]",
    "--adaptive.rules=[]",
    "--tracking=none",
    "--name=tiny",
)
