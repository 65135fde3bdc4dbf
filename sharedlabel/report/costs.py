"""Tables of what compressed networks cost, and of how many weights a layer can lose."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from sharedlabel.config.names import CROSSFIT, DENSE, network_name
from sharedlabel.records.measurements import Latency, Margin, quietest
from sharedlabel.records.written import short
from sharedlabel.report.views import View, usual

Setting: TypeAlias = tuple[str, str, int]


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        caption: what it is about.
        header: one name per column.
        lines: the cells of every row; the first names it.
        notes: sentences below.
    """

    caption: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def settings(latencies: Iterable[Latency]) -> list[Setting]:
    """List the measured device, mode and batch combinations in the order they were asked for."""
    places = dict.fromkeys((record.device, record.mode) for record in latencies)
    batches = sorted({record.batch for record in latencies})
    return [(*where, batch) for where in places for batch in batches]


def costs(view: View) -> Table | None:
    """Tabulate size, memory and time of every network: medians over seeds; None if nothing was measured."""
    if not view.latencies:
        return None
    places = settings(view.latencies)
    largest = max(batch for _, _, batch in places)
    device = places[0][0]
    fixed: tuple[tuple[str, Callable[[Latency], float]], ...] = (
        ("parameters", lambda r: r.parameters),
        ("MACs", lambda r: r.macs_effective),
        ("file, bytes", lambda r: r.file_bytes_dense),
        ("sparse file, bytes", lambda r: r.file_bytes_sparse),
    )
    header = ("network", *(name for name, _ in fixed), f"peak memory, bytes, batch {largest}", "theoretical speedup")
    lines = []
    for name, records in _networks(view):
        values = [short(_median(records, value)) for _, value in fixed]
        peaks = [r.peak_memory_bytes for r in records if (r.device, r.batch) == (device, largest)]
        memory = [peak for peak in peaks if peak is not None]
        values.append(short(float(statistics.median(memory))) if memory else "")
        values.append(f"{_median(records, lambda r: r.theoretical_speedup):.2f}x")
        lines.append((name, *values, *(_timing(records, place) for place in places)))
    timed = tuple(f"{device}, {mode}, batch {batch}" for device, mode, batch in places)
    caption = f"{_subject(view)}; {conditions(view.latencies)}"
    return Table(caption, (*header, *timed), tuple(lines), _busy(view.latencies))


def conditions(latencies: Iterable[Latency]) -> str:
    """Say with how many threads and by which clock times were measured."""
    measured = list(latencies)
    threads = sorted({record.threads for record in measured})
    clocks = {"cpu": "processor time", "wall": "wall-clock time"}
    named = " and ".join(clocks[clock] for clock in sorted({record.measured_clock for record in measured}))
    return f"{'/'.join(map(str, threads))} CPU thread{'s' * (threads != [1])}, {named}"


def _busy(latencies: Iterable[Latency]) -> tuple[str, ...]:
    """Explain the mark of times from a busy machine, if there are any."""
    ratios = [r.measured_contention or 0.0 for r in quietest(latencies) if r.measured_contended]
    if not ratios:
        return ()
    return (
        f"Busy: something else was at work on the machine (up to {max(ratios):.1f} times as long on the wall as on the "
        "processor); do not plan by that time. A ratio by the processor's clock leaves waits out, but not what others "
        "do to the caches, which slows large networks more; by the wall's it may be far off.",
    )


def margins(view: View) -> Table | None:
    """Tabulate the error margins of every layer of the dense network: means over seeds; None if they are off."""
    if not view.margins:
        return None
    groups: dict[tuple[float, str], list[Margin]] = {}
    for record in usual(view.margins):
        groups.setdefault((record.epsilon, record.layer), []).append(record)
    some = view.margins[0]
    header = (
        "layer",
        "epsilon",
        "weights",
        "certified",
        "largest gap then",
        "observed",
        "largest gap then",
        f"asymptotic, alpha = {some.alpha:g}",
    )
    ordered = sorted(groups, key=lambda key: key[0])  # layers stay in the order of the network
    lines = tuple(_margin(layer, groups[epsilon, layer]) for epsilon, layer in ordered)
    refusals = dict.fromkeys(record.refusal for record in view.margins if record.refusal)
    notes = tuple(f"No certificate: {reason}." for reason in refusals)
    return Table(f"{_subject(view)}; gaps on {some.inputs} validation images", header, lines, notes)


def _margin(layer: str, records: Sequence[Margin]) -> tuple[str, ...]:
    some = records[0]
    epsilon = f"{some.epsilon:g} ({fmean(r.epsilon_absolute for r in records):.3g})"
    certified = [r.certified_weights for r in records if r.certified_weights is not None]
    gaps = [r.certified_gap_max for r in records if r.certified_gap_max is not None]
    return (
        layer,
        epsilon,
        f"{some.weights:,}",
        _share(fmean(certified), some.weights) if certified else "",
        f"{fmean(gaps):.3g}" if gaps else "",
        _share(fmean(r.observed_weights for r in records), some.weights),
        f"{fmean(r.observed_gap_max for r in records):.3g}",
        _share(float(some.asymptotic_weights), some.weights),
    )


def _networks(view: View) -> list[tuple[str, list[Latency]]]:
    groups: dict[tuple[bool, str, float], list[Latency]] = {}
    for record in view.latencies:
        groups.setdefault((record.training == CROSSFIT, record.pruner, record.ratio), []).append(record)
    ordered = sorted(groups, key=lambda key: (key[0], key[1] != DENSE, *key))
    return [(_called(*key), groups[key]) for key in ordered]


def _called(crossfit: bool, pruner: str, ratio: float) -> str:
    return network_name(pruner, ratio) + (f" ({CROSSFIT})" if crossfit else "")


def _timing(records: Sequence[Latency], place: Setting) -> str:
    own = quietest(record for record in records if (record.device, record.mode, record.batch) == place)
    if not own:
        return ""
    busy = " (busy)" if own[0].measured_contended else ""
    taken = f"{_median(own, lambda r: r.measured_median_ms):.3g} ms{busy}"
    return f"{taken}, {_median(own, lambda r: r.measured_speedup):.2f}x"


def _median(records: Sequence[Latency], value: Callable[[Latency], float]) -> float:
    return float(statistics.median(value(record) for record in records))


def _share(count: float, whole: int) -> str:
    return f"{round(count):,} ({100 * count / whole:.1f}%)"


def _subject(view: View) -> str:
    records: Sequence[Latency] | Sequence[Margin] = view.latencies or view.margins
    seeds = len({record.seed for record in records})
    return f"{view.data}, {view.backbone}, {seeds} seed{'s' * (seeds > 1)}"
