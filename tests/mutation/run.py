"""Mutation testing: change the code in one small way at a time and see whether a test notices.

    make mutants                                   # every module below; needs mutmut, which the target installs
    python tests/mutation/run.py summary/sweetspot metrics/cost    # some of them

mutmut makes the changes: of operators, comparisons, numbers, arguments, conditions, names of options. Every function of
a module is there in all its versions, and says at its call which one runs. Its own runner starts a pytest for each
change, which takes longer than our tests do; here one pytest per module collects its tests once, finds out which
functions each test calls, and forks for every change (`plugin.py`). Texts with a space in them are prose and stay.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# What is tested by mutation, and the tests that have to notice: those of the module itself.
MODULES = {
    "summary/sweetspot": ["tests/test_sweetspot.py"],
    "store/local": [
        "tests/test_store.py",
        "tests/test_measurements.py",
        "tests/hostile/test_leases.py",
        "tests/stores",
    ],
    "store/checks": ["tests/test_store.py", "tests/stores/test_checks.py"],
    "store/artifacts": ["tests/test_store.py"],
    "measurements/counts": ["tests/test_cost.py"],
    "data/splits": ["tests/data/test_splits.py"],
    "data/tuples": ["tests/data/test_tuples.py"],
    "metrics/information": [
        "tests/metrics/test_information.py",
        "tests/metrics/test_checks.py",
        "tests/test_evaluation.py",
    ],
    "metrics/accuracy": ["tests/metrics/test_accuracy.py", "tests/metrics/test_checks.py"],
    "metrics/cost": ["tests/metrics/test_cost.py", "tests/metrics/test_checks.py"],
    "metrics/_checks": ["tests/metrics/test_checks.py"],
    "metrics/_shells": ["tests/metrics/test_shells.py", "tests/metrics/test_checks.py"],
    "metrics/calibration": [
        *(f"tests/metrics/test_{name}.py" for name in ("calibration", "temperature", "checks")),
        "tests/test_evaluation.py",
    ],
    "metrics/_temperature": ["tests/metrics/test_temperature.py", "tests/metrics/test_calibration.py"],
    "metrics/stopping": ["tests/metrics/test_stopping.py", "tests/metrics/test_checks.py"],
    "metrics/behrens_fisher": ["tests/metrics/test_behrens_fisher.py", "tests/metrics/test_checks.py"],
    "metrics/moderation": ["tests/metrics/test_moderation.py", "tests/metrics/test_checks.py"],
    "metrics/intervals": ["tests/metrics/test_intervals.py", "tests/metrics/test_checks.py"],
    "metrics/_weights": ["tests/metrics"],
    "metrics/_variance": ["tests/metrics/test_uncertainty.py", "tests/metrics/test_paired.py"],
    "metrics/uncertainty": ["tests/metrics/test_uncertainty.py", "tests/metrics/test_checks.py"],
    "metrics/paired": ["tests/metrics/test_paired.py", "tests/metrics/test_checks.py"],
    "summary/verdicts": ["tests/test_verdicts.py"],
    "summary/comparisons": ["tests/test_ranking.py", "tests/test_summary.py"],
    "summary/ranks": ["tests/test_ranking.py"],
    "metrics/gain": ["tests/metrics/test_gain.py", "tests/metrics/test_checks.py"],
    "metrics/brier": ["tests/metrics/test_brier.py", "tests/metrics/test_checks.py", "tests/test_evaluation.py"],
    "api/sweet_spot": ["tests/api/test_sweet_spot.py"],
    "plugins/contract": ["tests/test_outside.py"],
    "plugins/outside": ["tests/test_outside.py", "tests/test_surroundings.py"],
    "code/syntax": ["tests/test_sources.py", "tests/test_syntax.py"],
    "code/graphs": ["tests/test_sources.py"],
    "code/digests": ["tests/test_sources.py", "tests/test_surroundings.py"],
    "code/modules": ["tests/test_sources.py", "tests/test_surroundings.py"],
    "code/surroundings": ["tests/test_surroundings.py"],
    "training/resume": ["tests/training/test_resume.py"],
}

# They look at code instead of calling it, and would see the versions.
LOOKING = ["tests/metrics/test_checks.py::test_every_public_metric_is_refused_something"]


def main() -> int:
    """Test modules by mutation, print what survives and the score of each; 1 if a score is below 90%."""
    parser = argparse.ArgumentParser(description="Change the code and see whether a test notices.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}; all by default")
    parser.add_argument("--results", type=Path, default=ROOT / "runs" / "mutants", help="folder, one file per module")
    options = parser.parse_args()
    unknown = set(options.modules) - set(MODULES)
    if unknown:
        parser.error(f"expected modules of {', '.join(MODULES)}, got {', '.join(sorted(unknown))}")
    options.results.mkdir(parents=True, exist_ok=True)
    scores = []
    for module in options.modules or MODULES:
        mutants = mutated(module)
        (options.results / f"{module.replace('/', '.')}.json").write_text(json.dumps(mutants, indent=1) + "\n")
        killed = sum(mutant["status"] != "survived" for mutant in mutants)
        for mutant in mutants:
            if mutant["status"] == "survived":
                print(f"{mutant['name']}\n{mutant['change']}")
        scores.append(killed / max(len(mutants), 1))
        print(f"{module}: {killed} of {len(mutants)} killed, {scores[-1]:.1%}", flush=True)
    return int(min(scores) < 0.9)


def mutated(module: str) -> list[dict[str, Any]]:
    """Test one module: name, change, status and the test that noticed of every mutant."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("sharedlabel", "tests", "leaderboard", "pyproject.toml"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        code, names = versions(ROOT / "sharedlabel" / f"{module}.py")
        (copy / "sharedlabel" / f"{module}.py").write_text(code)
        dotted = f"sharedlabel.{module.replace('/', '.')}"
        job = {"mutants": [f"{dotted}.{name}" for name in names], "results": str(copy / "results.json")}
        (copy / "job.json").write_text(json.dumps(job))
        command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=--import-mode=importlib"]
        command += ["--assert=plain", "--tb=native", "-p", "no:xdist", "-p", "no:cacheprovider"]
        command += ["-p", "tests.mutation.plugin", *MODULES[module]]
        command += [f"--deselect={test}" for test in LOOKING]
        environment = os.environ | {"PYTHONPATH": folder, "MUTANTS": str(copy / "job.json"), "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=copy, env=environment, check=True)
        results: dict[str, dict[str, Any]] = json.loads((copy / "results.json").read_text())
    changes = differences(code)
    return [
        {"name": name, "change": changes[name.rpartition(".")[2]], **results[name]}
        for name in sorted(results, key=_order)
    ]


def _order(name: str) -> tuple[str, int]:
    function, _, number = name.rpartition("__mutmut_")
    return function, int(number)


def versions(path: Path) -> tuple[str, list[str]]:
    """Return a module with all versions of its functions, and the names of the changed ones."""
    from mutmut.mutation import file_mutation, mutators

    def strings(node: Any) -> Any:
        return [] if " " in getattr(node, "value", "") else mutators.operator_string(node)

    kinds = mutators.mutation_operators
    kinds[:] = [(kind, strings if change is mutators.operator_string else change) for kind, change in kinds]
    file_mutation.NEVER_MUTATE_FUNCTION_NAMES.add("_should_skip_dynamo")  # torch asks before the class is there
    mutation = file_mutation.mutate_file_contents(str(path), path.read_text())
    return mutation.code, list(mutation.mutant_names)


def differences(code: str) -> dict[str, str]:
    """Return what each version changes, as lines with - and +."""
    bodies = {
        node.name: ast.unparse(node).replace(node.name, "function").splitlines()
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef) and "__mutmut_" in node.name
    }
    changes = {}
    for name, body in bodies.items():
        original = bodies[name.rpartition("__mutmut_")[0] + "__mutmut_orig"]
        lines = list(difflib.unified_diff(original, body, lineterm="", n=0))[2:]
        changes[name] = "\n".join(line for line in lines if not line.startswith("@@"))
    return changes


if __name__ == "__main__":
    sys.exit(main())
