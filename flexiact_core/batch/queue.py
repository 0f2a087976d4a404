"""Jobs one after the other, or on Ray's workers; each result goes to whoever keeps it as soon as it is there.

Only the process that runs the queue writes: workers give bytes back. A worker that is killed leaves nothing half done.
"""

from __future__ import annotations

import importlib.util
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import FlexiActError, SettingError
from .jobs import Job

# What makes the content of a job's file; made once a worker, and used for job after job.
Maker = Callable[[Job], bytes]
# How often a job is begun again whose worker was killed; after that, it is taken to be what kills workers.
TRIES_AGAIN = 3
KILLED = (
    f"its worker was killed {TRIES_AGAIN + 1} times, most often for want of memory. Ask for a smaller video or fewer "
    "workers a machine."
)
# The address of a cluster that is started for this batch alone, and ends with it.
HERE = "local"
# Between two questions to a worker that is being started again.
PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Result:
    """What became of a job: the content of its file and the seconds it took, or the sentence on why there is none."""

    content: bytes = b""
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class Pool:
    """Ray's workers: the address of a cluster, '' to start one on this machine, how many, and GPUs for each."""

    address: str = ""
    workers: int = 1
    gpus_each: float = 0.0


OnDone = Callable[[Job, Result], None]


def has_ray() -> bool:
    """Whether the package that workers on other machines need is there."""
    return importlib.util.find_spec("ray") is not None


def attempt(make: Maker, job: Job) -> Result:
    """The result of one job. What a user can act on is a sentence; any other fault is named by its kind."""
    start = time.monotonic()
    try:
        return Result(make(job), time.monotonic() - start)
    except FlexiActError as error:
        return Result(error=str(error))
    except MemoryError:
        return Result(error="there was not enough memory. Ask for a smaller video, or state less with --memory.")
    except Exception as error:  # one job's fault, whatever it is, ends no others
        lines = str(error).strip().splitlines() or [""]
        return Result(error=f"{type(error).__name__}: {lines[0][:200]}")


def run_alone(jobs: Iterable[Job], make_maker: Callable[[], Maker], on_done: OnDone) -> None:
    """Runs jobs in this process, in their order."""
    make = None
    for job in jobs:
        make = make or make_maker()
        on_done(job, attempt(make, job))


def run_on_ray(jobs: Iterable[Job], make_maker: Callable[[], Maker], on_done: OnDone, pool: Pool) -> None:
    """Runs jobs on workers of a Ray that connected() has reached. on_done is called here, in the order of their ends.

    A worker that is killed is started again by Ray, and its job is begun again, TRIES_AGAIN times. make_maker is called
    in each worker; it must be importable there under the same name, unless it is a function inside another.
    """
    import ray

    actor = ray.remote(num_cpus=1, num_gpus=pool.gpus_each, max_restarts=-1)(Worker)
    waiting, lost = iter(jobs), Counter()
    # By what is waited for: the worker, its job, and whether it is only asked if it is there.
    running = {}
    for worker in [actor.remote(make_maker) for _ in range(pool.workers)]:
        if (job := next(waiting, None)) is not None:
            running[worker.run.remote(job)] = worker, job, False
    while running:
        (ended, *_), _ = ray.wait(list(running), num_returns=1)
        worker, job, asked = running.pop(ended)
        try:
            result = ray.get(ended)
        except ray.exceptions.RayActorError:
            # It is being started again, which a busy machine takes its time for: its job waits until it answers.
            lost[job.key] += not asked
            following = job
            if lost[job.key] > TRIES_AGAIN:
                on_done(job, Result(error=KILLED))
                following = next(waiting, None)
            if following is not None:
                time.sleep(PAUSE_SECONDS)
                running[worker.is_there.remote()] = worker, following, True
            continue
        if asked:
            running[worker.run.remote(job)] = worker, job, False
            continue
        # The worker goes on while the result is written.
        if (following := next(waiting, None)) is not None:
            running[worker.run.remote(following)] = worker, following, False
        on_done(job, result)


class Worker:
    """What runs in a process of Ray's: it makes its maker at its first job, and keeps it."""

    def __init__(self, make_maker: Callable[[], Maker]):
        self.make_maker, self.make = make_maker, None

    def is_there(self) -> bool:
        """True: an answer."""
        return True

    def run(self, job: Job) -> Result:
        """The result of one job."""

        def make(job: Job) -> bytes:
            self.make = self.make or self.make_maker()
            return self.make(job)

        return attempt(make, job)


@contextmanager
def connected(address: str, workers: int | None, gpu_jobs: bool = True):
    """The Pool of a Ray cluster, left again afterwards.

    The address 'auto' is that of a cluster that runs on this machine, else of one started here; HERE always starts one.

    Without a number of workers, one for each GPU, and one where there is none. Raises SettingError if Ray is not
    installed, does not answer, or has too few CPUs or GPUs for so many.
    """
    if not has_ray():
        raise SettingError("--ray: the Python package ray is needed. Install it: pip install ray; or leave --ray out.")
    import ray

    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address != HERE:
            ray.init(address=address, **quiet)
    except ConnectionError as error:
        if address != "auto":
            raise SettingError(f"--ray {address}: no cluster answers there. Start one: ray start --head.") from error
    if not ray.is_initialized():
        # As many CPUs as workers: a machine of few may hold more workers than it has.
        ray.init(address=HERE, num_cpus=workers, include_dashboard=False, **quiet)
    try:
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0)) if gpu_jobs else 0
        count = workers or max(gpus, 1)
        if count > (gpus or int(there.get("CPU", 0))):
            raise SettingError(
                f"--workers {count}: this cluster has {int(there.get('CPU', 0))} CPUs and {gpus} GPUs; each worker "
                "takes one of both. Ask for fewer."
            )
        yield Pool(address, count, 1.0 if gpus else 0.0)
    finally:
        ray.shutdown()

