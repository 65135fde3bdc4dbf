"""Submissions that try to win or to harm: each is caught, or gains nothing.

Their code goes straight into the sandbox, past the reading of files, which refuses most of it already. Those that look
for something raise an error that starts with FOUND where they find it, and are tried outside the sandbox as well, where
they do find it: a cheat that could not work anywhere would show nothing.
"""

from __future__ import annotations

import dataclasses
import pickle
import random
import secrets
import textwrap

import numpy as np
import pytest
import torch

from sharedlabel import rng
from sharedlabel.errors import DataError
from sharedlabel.leaderboard.board import score, writing
from sharedlabel.leaderboard.cost import Cost
from sharedlabel.leaderboard.sandbox import asking, examination, run
from sharedlabel.leaderboard.sandbox.limits import SandboxError
from sharedlabel.leaderboard.submission import reading, stripped
from tests.leaderboard.conftest import CLASSES, IMAGES, KIND, N, make_board, needs_sandbox

pytestmark = needs_sandbox
SOON = 3  # seconds; one that has not even started by then is ended alike


@pytest.fixture(autouse=True)
def drawn(monkeypatch):
    """Draw the same secrets every time: a guess would be lucky now and then."""
    monkeypatch.setattr(secrets, "randbits", random.Random(0).getrandbits)


@pytest.fixture
def twice():
    """Train and ask a process a second time, as every run does with one of its processes."""


@pytest.fixture(autouse=True)
def asked_once(request, monkeypatch):
    """Take the second training and asking of a process as equal to the first, which halves the time of these tests."""
    if "twice" in request.fixturenames:
        return
    honest, answers = asking.ask, {}

    def once(*given):
        *_, salt, turn = given
        if turn == "first":
            answers[salt] = honest(*given)
        return answers[salt]

    monkeypatch.setattr(run, "ask", once)


def ask(cheat, board, kind=KIND):
    """Run a submission, and return its primary score."""
    protocol = board.protocol("toy-v1")
    answered = run.run(cheat, protocol, board, kind, 2, lambda line: None)
    content, _ = writing.serialized(answered.tensors)
    answers = board.answers(protocol)
    return score.score(score.read(content, protocol, answers), protocol, answers)


def accuracy(scored) -> float:
    return sum(cell["n_accuracy"] for cell in scored.cells) / len(scored.cells)


def gains_nothing(scored) -> bool:
    return scored.ri < 0.05 and accuracy(scored) < 1 / CLASSES + 0.25


def test_an_honest_aggregator_scores_where_there_is_something_to_know(written, tmp_path):
    scored = ask(written(), make_board(tmp_path, signal=3.0))
    assert scored.ri > 0.5
    assert accuracy(scored) > 0.8


def test_noise_gives_an_honest_aggregator_nothing(written, board):
    assert gains_nothing(ask(written(), board))


SEARCHES = """
import glob, os
me, met = os.getpid(), set()
for folder, folders, files in os.walk("/"):
    if ".git" in folders and os.path.exists(os.path.join(folder, ".git", "HEAD")):
        met.add("history")
    if {"answers.safetensors", "toy-v1.toml", "dense.safetensors", "digits.csv.gz"}.intersection(files):
        met.add("files")
    if len(met) == 2:
        break
for pid in glob.glob("/proc/[0-9]*"):
    try:
        if "THE_ANSWERS" in open(pid + "/environ").read():
            met.add("environment")
        line = open(pid + "/cmdline").read()
    except OSError:
        continue
    if pid not in ("/proc/1", f"/proc/{me}") and ("pytest" in line or "xdist" in line or "execnet" in line):
        met.add("processes")
if "THE_ANSWERS" in str(dict(os.environ)):
    met.add("environment")
if met:
    raise RuntimeError("FOUND " + " ".join(sorted(met)))
"""


def test_what_is_looked_for_is_not_there(written, board, monkeypatch, tmp_path):
    """No file of a board or a data set, no history of git, no other process, and nothing of our environment."""
    monkeypatch.setenv("THE_ANSWERS", "0123")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    cheat = written(start=SEARCHES)
    assert gains_nothing(ask(cheat, board))
    with pytest.raises(SandboxError, match=r"FOUND (environment )?files history processes"):
        ask(cheat, board, "trusted")


def test_what_is_next_to_impossible_can_be_stored(written, board):
    """Less than the least number in float16 would be stored as -inf, and refused by the scorer."""
    doubtless = written(forward="posterior = normalize(posterior.masked_fill(logits < logits.amax(-1, True), -1e9))")
    assert ask(doubtless, board).scores["information"].isfinite().all()


def test_labels_of_test_are_not_in_memory(written, board):
    """All labels that a process holds are those of training and validation: as many as these have images."""
    cheat = written(
        forward="""
import gc
held = [o for o in gc.get_objects() if isinstance(o, torch.Tensor) and o.dtype in (torch.int64, torch.uint8)]
guess = [o for o in held if o.ndim == 1 and len(o) == len(logits) and int(o.max()) < logits.shape[-1]]
if guess:
    posterior = normalize(20 * torch.nn.functional.one_hot(guess[0].long(), logits.shape[-1]).float())
    posterior = posterior[:, None].expand_as(logits)
"""
    )
    assert gains_nothing(ask(cheat, board))


def test_the_memory_of_another_process_cannot_be_read(written, board):
    cheat = written(
        start="""
import os
for name in ("/proc/1/mem", f"/proc/{os.getppid()}/mem"):
    try:
        open(name, "rb").read(1)
    except OSError:
        continue
    raise RuntimeError("FOUND " + name)
"""
    )
    assert gains_nothing(ask(cheat, board))


def test_the_order_of_tuples_says_nothing(written, board, monkeypatch, twice):
    """In the protocol's file the tuples come class by class; whoever counts on it is caught by asking twice, too."""
    cheat = written(
        forward="""
rows = torch.arange(len(logits)) * logits.shape[-1] // len(logits) % logits.shape[-1]
posterior = normalize(3 * torch.nn.functional.one_hot(rows, logits.shape[-1]).float())[:, None].expand_as(logits)
"""
    )
    compare, answers = run._compare, []
    monkeypatch.setattr(run, "_compare", lambda *given: answers.append(given))
    assert gains_nothing(ask(cheat, board))
    with pytest.raises(SandboxError, match="two runs with other batches"):
        compare(*answers[0])


@pytest.mark.parametrize("shuffled", [True, False])
def test_the_order_of_questions_says_nothing(written, board, monkeypatch, shuffled):
    """One that counts the tuples it was asked about, and answers as if they came class by class, as in the file."""
    tuples = IMAGES // N
    cheat = written(
        start="self.first = self.met = 0",
        forward=f"""
if logits.shape[1] == 1 and self.asked > 2:
    self.first, self.met = self.met, self.met + len(logits)
rows = (self.first + torch.arange(len(logits))) % {tuples} * {CLASSES} // {tuples}
posterior = normalize(3 * torch.nn.functional.one_hot(rows, {CLASSES}).float())[:, None].expand_as(logits)
""",
    )
    monkeypatch.setattr(run, "_compare", lambda first, second: None)
    if not shuffled:
        monkeypatch.setattr(torch, "randperm", lambda count, generator: torch.arange(count))
    scored = ask(cheat, board)
    assert gains_nothing(scored) if shuffled else accuracy(scored) == 1


def test_the_first_class_is_not_the_first_class(written, tmp_path):
    """Classes are renamed: knowing which is common, or easy, by its number does not help."""
    board = make_board(tmp_path)
    seen = set()
    for _ in range(2):
        cheat = written(forward="posterior = normalize(torch.tensor([3.0, 0, 0, 0]).expand_as(logits))")
        protocol = board.protocol("toy-v1")
        answered = run.run(cheat, protocol, board, KIND, 2, lambda line: None)
        seen.add(int(answered.tensors["dense.0.test"][0, 0].argmax()))
        assert (answered.tensors["dense.0.test"].argmax(-1) == answered.tensors["dense.0.test"][0, 0].argmax()).all()
    assert len(seen) > 1


def test_later_instances_are_refused_by_the_check(written, board):
    cheat = written(forward="posterior = normalize(logits.sum(dim=1, keepdim=True).expand_as(logits))")
    report = examination.examine(cheat, [(board.protocol("toy-v1"), 6)], KIND)
    assert any(problem.startswith("causal: expected the same posterior") for problem in report.problems)


def test_later_instances_are_not_there_yet(written, board):
    """One that hides from the check is never shown more instances than it is asked about."""
    cheat = written(
        forward="""
if logits.shape[1] not in (1, 4):
    raise RuntimeError(f"FOUND {logits.shape[1]} instances")
if logits.shape[1] == 4 and not getattr(self, "met", False):
    raise RuntimeError("FOUND four before one")
self.met = True
"""
    )
    quiet = "if self.asked == 0 or len(logits) > 90:\n            return posterior\n"
    cheat = reading.Submission(
        **{
            **cheat.__dict__,
            "code": cheat.code.replace(
                "        if logits.shape[1] not in", f"        {quiet}        if logits.shape[1] not in"
            ),
        }
    )
    assert gains_nothing(ask(cheat, board))


def test_the_batch_is_refused_by_the_check(written, board):
    cheat = written(forward="posterior = normalize(posterior - posterior.mean(dim=0))")
    report = examination.examine(cheat, [(board.protocol("toy-v1"), 6)], KIND)
    assert any(problem.startswith("independent of the batch") for problem in report.problems)


def test_one_that_looks_at_larger_batches_than_the_check_has_is_caught_by_asking_twice(written, board, twice):
    cheat = written(forward="if len(logits) > 6:\n    posterior = normalize(posterior - posterior[:1])")
    assert not examination.examine(cheat, [(board.protocol("toy-v1"), 6)], KIND).problems
    with pytest.raises(SandboxError, match="two runs with other batches"):
        ask(cheat, board)


BALANCED = """
posterior = posterior.clone()
if not torch.is_grad_enabled():
    for _ in range(20):
        posterior = normalize(posterior - posterior.logsumexp(dim=0, keepdim=True))
"""


def test_a_batch_that_is_balanced_in_any_order_is_caught(written, board, twice):
    """Every class has as many tuples: whoever sees all of them at once could share the labels out among them."""
    with pytest.raises(SandboxError, match="two runs with other batches"):
        ask(written(forward=BALANCED), board)


def test_one_that_remembers_images_of_earlier_questions_is_caught(written, board, twice):
    cheat = written(
        start="self.met = torch.zeros(())",
        forward="self.met = self.met + 0.1 * logits.mean(dim=(0, 1))\nposterior = normalize(posterior + self.met)",
    )
    with pytest.raises(SandboxError, match="two runs with other batches"):
        ask(cheat, board)


def test_questions_never_hold_all_tuples():
    sizes = [[len(batch) for batch in asking.batches(95, rng.generator(seed))] for seed in range(20)]
    assert all(sum(batches) == 95 and max(batches) <= asking.BATCH for batches in sizes)
    assert len({tuple(batches) for batches in sizes}) == 20
    orders = [[row for batch in asking.batches(95, rng.generator(seed)) for row in batch] for seed in range(20)]
    assert all(sorted(order) == list(range(95)) for order in orders)
    assert all(np.corrcoef(order, range(95))[0, 1] < 0.5 for order in orders)


def test_patching_torch_and_the_metrics_changes_no_score(written, board):
    cheat = written(
        top="""
import sys, types
import numpy
fake = types.ModuleType("sharedlabel.scoring.scores")
fake.score = lambda *a, **k: 1 / 0
sys.modules["sharedlabel.scoring.scores"] = fake
torch.Tensor.isfinite = lambda self: torch.ones_like(self, dtype=torch.bool)
numpy.mean = lambda *a, **k: 1.0
"""
    )
    assert gains_nothing(ask(cheat, board))


# What is tried, one after the other in one process, and why it has to fail.
DENIED = {
    "fork": ("os.fork()", "Operation not permitted"),
    "start a program": ("subprocess.run(['/usr/bin/env'])", "Operation not permitted"),
    "open a socket": ("socket.create_connection(('1.1.1.1', 80), 1)", "Operation not permitted"),
    "write among the devices": ("open('/dev/made', 'w')", "Read-only file system|Permission denied"),
    "write to the submission": ("open('/submission/aggregator.py', 'w')", "Read-only file system"),
    "write to the root": ("open('/made', 'w')", "Read-only file system"),
    "write elsewhere": ("open('/usr/made', 'w')", "Read-only file system|Permission denied"),
    **{
        f"change the kernel's {name}": (
            f"open('/proc/sys/{name}', 'w').write(open('/proc/sys/{name}').read())",
            "Read-only file system|Permission denied",
        )
        for name in ("kernel/core_pattern", "vm/overcommit_memory", "fs/file-max")
    },
    "fill the disk": (
        "[open(f'/tmp/{number}', 'wb').write(bytes(1 << 20)) for number in range(10_000)]",
        "No space left on device",
    ),
}


def test_what_would_do_harm_is_denied(written, board):
    code = f"""
import os, re, socket, subprocess
done = []
for how, (code, message) in {DENIED!r}.items():
    try:
        exec(code)
        done.append(how)
    except OSError as error:
        if not re.search(message, str(error)):
            done.append(f"{{how}} ({{error}})")
raise RuntimeError(f"done: {{done}}")
"""
    with pytest.raises(SandboxError, match=r"done: \[\]$"):
        ask(written(start=code), board)


HARMS = {
    "allocates": ("kept = []\nwhile True:\n    kept.append(torch.ones(1 << 24))", "memory|code"),
    "shares memory": (
        "import mmap\nkept = [mmap.mmap(-1, 1 << 28) for _ in range(40)]\n"
        "for m in kept:\n    for at in range(0, 1 << 28, 4096):\n        m[at] = 1",
        "memory|code",
    ),
    "starts threads": (
        "import threading, time\nfor _ in range(500):\n    threading.Thread(target=time.sleep, args=(99,)).start()\n"
        "time.sleep(99)",
        "processes and threads|can't start new thread",
    ),
    "prints": ("while True:\n    print('x' * 10_000)", "at most 100 kB of output"),
    "prints past Python": ("import os\nwhile True:\n    os.write(2, b'x' * 10_000)", "at most 100 kB of output"),
    "exits": ("import os\nos._exit(0)", "ended with code 0"),
    "kills all it can": (
        "import os, signal\nos.kill(-1, signal.SIGKILL)\nos.kill(os.getpid(), signal.SIGKILL)",
        "ended with code",
    ),
}


@pytest.mark.parametrize("how", HARMS)
def test_harm_is_contained(written, board, how):
    code, message = HARMS[how]
    with pytest.raises(SandboxError, match=message):
        ask(written(start=code), board)


def test_one_that_hangs_up_and_stays_is_ended(written, tmp_path):
    board = make_board(tmp_path, limits={"seconds": SOON})
    stays = "import os, time\nos.close(0)\nos.closerange(1, 20)\ntime.sleep(99)"
    with pytest.raises(SandboxError, match=rf"expected an end within {SOON} s|ended with code"):
        ask(written(start=stays), board, "trusted")


@pytest.mark.parametrize("place", ["start", "forward"])
def test_one_that_sleeps_is_ended(written, tmp_path, place):
    board = make_board(tmp_path, limits={"seconds": SOON})
    with pytest.raises(SandboxError, match=f"expected an end within {SOON} s"):
        ask(written(**{place: "import time\nwhile True:\n    time.sleep(1)"}), board)


ANSWERS = {
    "NaN": (lambda posterior: posterior * float("nan"), "finite"),
    "Inf": (lambda posterior: posterior - float("inf"), "finite"),
    "not a posterior": (lambda posterior: posterior.exp(), "sum to 1"),
    "more than there is": (lambda posterior: posterior + 5, "sum to 1"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_what_is_no_posterior_is_refused(what):
    change, message = ANSWERS[what]
    answer = change(torch.zeros(3, CLASSES).log_softmax(-1)).numpy().astype("<f4").tobytes()
    with pytest.raises(SandboxError, match=message):
        asking.posterior_of(answer, 3, CLASSES, N)


@pytest.mark.parametrize(
    ("forward", "message"),
    [("posterior = posterior * float('nan')", "finite"), ("posterior = posterior[..., :1]", "expected posteriors")],
)
def test_an_answer_that_is_no_posterior_ends_a_run(written, board, forward, message):
    with pytest.raises(SandboxError, match=message):
        ask(written(forward=forward), board)


def test_a_pickle_on_the_way_out_is_read_as_numbers(written, tmp_path):
    cheat = written(
        forward="""
import os, pickle
class Exploit:
    def __reduce__(self):
        return (os.system, ("touch /tmp/owned",))
for descriptor in range(3, 20):
    try:
        os.write(descriptor, pickle.dumps(Exploit()) * 1000)
    except OSError:
        pass
"""
    )
    with pytest.raises(SandboxError, match=r"sum to 1|finite|more output|at most 1,000,000 bytes|got something else"):
        ask(cheat, make_board(tmp_path))


def test_a_pickle_in_the_place_of_predictions_is_refused(board):
    protocol = board.protocol("toy-v1")
    with pytest.raises(DataError, match="expected predictions in safetensors"):
        score.read(pickle.dumps({"dense.0.test": torch.zeros(2)}), protocol, board.answers(protocol))


def test_costs_cannot_be_hidden_in_numpy(written, board):
    cheat = written(forward="posterior = normalize(torch.from_numpy(posterior.detach().numpy() * 1.0))")
    report = examination.examine(cheat, [(board.protocol("toy-v1"), 6)], KIND)
    assert report.problems
    with pytest.raises(DataError, match=r"'.(from_)?numpy' is not allowed"):
        stripped.normal(cheat.code, "aggregator.py")


LATER = """
if self.training:
    self.started = True
if getattr(self, "started", False):
    posterior = normalize(posterior + logits @ torch.eye(logits.shape[-1]))
"""


def test_work_that_starts_after_training_is_counted(written, board):
    """The check counts one that was never trained; what answers is counted again, and has to cost the same."""
    cheat = written(forward=LATER)
    protocol = board.protocol("toy-v1")
    findings = examination.examine(cheat, [(protocol, 6)], KIND)
    assert findings.problems == ()
    assert set(findings.costs[0].macs.values()) == {0}
    cost = Cost(macs={1: 0, 4: 0}, parameters=0)
    assert run.run(written(), protocol, board, KIND, 1, lambda line: None, cost).tensors
    learns = cheat.code.replace(
        "self.asked = 0", "self.asked = 0\n        self.bias = torch.nn.Parameter(torch.zeros(()))"
    )
    learns = learns.replace("logits.cumsum(dim=1)", "logits.cumsum(dim=1) + 0 * self.bias", 1)
    with pytest.raises(SandboxError, match="MACs by n once trained, as in the check"):
        run.run(dataclasses.replace(cheat, code=learns), protocol, board, KIND, 1, lambda line: None, cost)


def test_one_that_does_not_read_holds_nobody(written, tmp_path):
    board = make_board(tmp_path, limits={"seconds": 20})
    forward = """
import os, time
for descriptor in range(3, 20):
    try:
        os.write(descriptor, posterior.numpy().astype("<f4").tobytes() * 10)
    except OSError:
        pass
time.sleep(99)
"""
    with pytest.raises(SandboxError):
        ask(written(forward=f"if self.asked > 4:\n{textwrap.indent(forward, '    ')}"), board)


def test_a_table_of_answers_does_not_fit(written):
    table = written(top=f"ANSWERS = {'0123' * 2000!r}")
    with pytest.raises(DataError, match="at most 512 bytes of constants"):
        stripped.normal(table.code, "aggregator.py")


def test_a_table_in_comments_and_docstrings_does_not_come_along():
    code = stripped.normal('"""0123"""\n# 0123\ndef f():\n    """0123"""\n    return 1\n', "aggregator.py")
    assert "0123" not in code
