"""What is run when: parts first, the whole after them, and nobody is blamed for a neighbour's death."""

from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from wsi_lmc.executor import SerialExecutor
from wsi_lmc.steps.agenda import Agenda
from wsi_lmc.steps.outcome import Outcome, Split, Stage


@dataclass(frozen=True)
class Job:
    """A task that splits into ``parts``, of which some fail."""

    slide_id: str
    parts: int = 0
    bad: frozenset[int] = frozenset()
    part: int | None = None

    @property
    def stage(self) -> Stage:
        return "embed"


def test_parts_are_run_before_other_tasks_and_the_whole_after_them() -> None:
    ran: list[tuple[str, int | None]] = []
    left = {"b": 3}

    def step(job: Job) -> Outcome | Split[Job]:
        ran.append((job.slide_id, job.part))
        if job.part is not None:
            return Outcome(job.slide_id, "embed", "done", tiles=1, seconds=1.0)
        if left.pop(job.slide_id, 0):
            return Split(tuple(Job(job.slide_id, part=number) for number in range(3)))
        return Outcome(job.slide_id, "embed", "done", tiles=7, seconds=0.5)

    found = list(SerialExecutor().run(step, [Job("a"), Job("b"), Job("c")]))
    assert [(outcome.slide_id, outcome.tiles, outcome.seconds) for outcome in found] == [
        ("a", 7, 0.5),
        ("b", 7, 3.5),
        ("c", 7, 0.5),
    ]
    assert ran == [("a", None), ("b", None), ("b", 0), ("b", 1), ("b", 2), ("b", None), ("c", None)]


@given(
    jobs=st.lists(st.tuples(st.integers(0, 6), st.frozensets(st.integers(0, 5))), max_size=8),
    at_once=st.integers(1, 5),
    killers=st.frozensets(st.integers(0, 7)),
    rng=st.randoms(use_true_random=False),
)
def test_every_slide_comes_out_once_whatever_happens(
    jobs: list[tuple[int, frozenset[int]]], at_once: int, killers: frozenset[int], rng: Random
) -> None:
    """Workers run tasks in any order; some tasks kill whoever runs them, with all that runs beside them."""
    tasks = [Job(str(number), parts, bad) for number, (parts, bad) in enumerate(jobs)]
    agenda: Agenda[Job] = Agenda(tasks)
    split: set[str] = set()
    outcomes: list[Outcome] = []
    running = []
    while True:
        while len(running) < at_once and (item := agenda.take()) is not None:
            running.append(item)
        if not running:
            break
        rng.shuffle(running)
        item = running[0]
        job = item.task
        if int(job.slide_id) in killers:
            dead, running = running, []
            for victim in dead:
                if not agenda.died(victim):
                    blamed = agenda.ended(victim, Outcome(victim.task.slide_id, "embed", "failed", "worker_died"))
                    outcomes += [blamed] if blamed else []
            continue
        running.pop(0)
        result: Outcome | Split[Job] = Outcome(job.slide_id, "embed", "failed" if job.part in job.bad else "done")
        if job.part is None and job.parts and job.slide_id not in split:
            split.add(job.slide_id)
            result = Split(tuple(Job(job.slide_id, job.parts, job.bad, part) for part in range(job.parts)))
        outcome = agenda.ended(item, result)
        outcomes += [outcome] if outcome else []
    expected = {
        task.slide_id: "worker_died"
        if int(task.slide_id) in killers
        else ("failed" if task.bad & set(range(task.parts)) else "done")
        for task in tasks
    }
    assert {outcome.slide_id: outcome.code or outcome.state for outcome in outcomes} == expected
    assert len(outcomes) == len(tasks)


def test_a_slide_whose_parts_never_stay_fails_alone() -> None:
    def step(job: Job) -> Outcome | Split[Job]:
        whole = job.part is not None or job.slide_id == "b"
        return Outcome(job.slide_id, "embed", "done") if whole else Split((Job(job.slide_id, part=0),))

    found = SerialExecutor().run(step, [Job("a"), Job("b")])
    assert [(outcome.slide_id, outcome.state, outcome.code) for outcome in found] == [
        ("a", "failed", "io"),
        ("b", "done", ""),
    ]
