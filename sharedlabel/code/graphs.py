"""Which nodes of a directed graph lead to each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)


def components(nodes: Collection[Node], targets: Callable[[Node], Iterable[Node]]) -> Iterator[list[Node]]:
    """Yield the strongly connected components of a graph, each after all that it leads to.

    Args:
        nodes: the nodes; edges to others are left out.
        targets: returns the nodes to which the edges of a node lead.

    Reference: Tarjan, "Depth-first search and linear graph algorithms" (1972).

    >>> edges = {"a": "b", "b": "cd", "c": "b", "d": ""}
    >>> [sorted(component) for component in components(edges, edges.__getitem__)]
    [['d'], ['b', 'c'], ['a']]
    """
    order: dict[Node, int] = {}  # when a node was met
    lowest: dict[Node, int] = {}  # of nodes whose component is not whole yet: the first such node that it leads to
    unfinished: list[Node] = []

    def enter(node: Node) -> tuple[Node, Iterator[Node]]:
        order[node] = lowest[node] = len(order)
        unfinished.append(node)
        return node, iter(targets(node))

    for start in nodes:
        path = [] if start in order else [enter(start)]
        while path:
            node, left = path[-1]
            for target in left:
                if target in nodes and target not in order:
                    path.append(enter(target))
                    break
                if target in lowest:
                    lowest[node] = min(lowest[node], order[target])
            else:
                path.pop()
                if path:
                    lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[node])
                if lowest[node] == order[node]:
                    component = unfinished[unfinished.index(node) :]
                    del unfinished[-len(component) :]
                    for member in component:
                        del lowest[member]
                    yield component
