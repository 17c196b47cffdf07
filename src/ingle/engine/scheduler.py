"""Continuous batching: answers join and leave between two tokens, on one thread that owns the backends.

Each step reads one token of every answer in progress, and some tokens of prompts: fewer while others write, so that a long prompt never
freezes them. Places go round by owner, then first come, first served. A job waits for memory; `Busy` refuses it if the queue is full.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from weakref import WeakValueDictionary

from ingle.core.errors import Busy, Closing, RequestError
from ingle.core.message import Chunk
from ingle.core.process import release_memory
from ingle.energy.meter import Meter, open_meter
from ingle.engine.backend import Backend, forward_whole
from ingle.engine.decoding import Decoding
from ingle.engine.job import Capacity, Counts, Failures, FairQueue, Job, Outcome, post_directly, spared
from ingle.engine.metering import Reading, Readings, StepMeter
from ingle.engine.prefix_cache import PrefixCache, SavedStates, common_length, is_forgotten
from ingle.engine.speculative import BatchLoad, StepTimers

WORTH_WAITING = 64  # an answer waits for another one that is reading at least this many tokens of a common start
IDLE_S = 1.0  # quiet time after which states are saved


class Scheduler:
    """Runs jobs until it is closed. `post` gets the outcomes of each step, on the scheduler's thread.

    When all is quiet, and at the end, states of kept conversations go to `saved`. `meter`: this process's, unless another is given.
    """

    def __init__(
        self, capacity: Capacity, cache: PrefixCache, post: Callable[[Sequence[Outcome]], None] = post_directly,
        saved: SavedStates | None = None, meter: Meter | None = None,
    ) -> None:  # fmt: skip
        self.capacity, self.cache, self.saved, self.counts, self.failures = capacity, cache, saved, Counts(), Failures()
        self.energy = StepMeter(open_meter() if meter is None else meter)
        self._post = post
        self._errands: list[Callable[[], None]] = []
        self._queue: FairQueue[Job] = FairQueue(capacity.queue, capacity.queue_per_owner)
        self._running: list[Job] = []
        self._readings = Readings(self.energy)
        self._served: Counter[str] = Counter()
        self._last: Backend | None = None
        # Backends by digest, for states on disk. A model that is no longer offered is not held.
        self._backends: WeakValueDictionary[str, Backend] = WeakValueDictionary()
        self._paces = StepTimers(capacity.drafts)
        self._answer_s = 2.0
        self._cached_bytes = 0
        self._wake = threading.Condition()
        self._closing: float | None = None
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs: not once it is closed."""
        return self._thread.is_alive()

    @property
    def running(self) -> int:
        """The number of answers in progress."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """The number of answers that wait for a place."""
        return len(self._queue)

    @property
    def cached_bytes(self) -> int:
        """Bytes of the states of earlier prompts, as of the last change."""
        return self._cached_bytes

    def submit(self, job: Job) -> None:
        """Queue a job. Raises Busy if the queue is full, RequestError if the job could never fit the memory."""
        total = len(job.ids) + job.model.most_tokens(job.request, len(job.ids))
        job.needed_bytes = job.model.backend.state_bytes(total)
        if job.needed_bytes > self.capacity.state_bytes:
            got, cure = f"{job.needed_bytes / 1e6:.0f} MB for {total} tokens", "Ask for fewer tokens, or raise serve.state_mb."
            raise RequestError("max_tokens", f"must fit {self.capacity.state_bytes / 1e6:.0f} MB of states", got, cure)
        with self._wake:
            if self._closing is not None or not self.alive:
                raise _closing()
            wait = max(1.0, min(60.0, self._answer_s * (len(self._queue) + 1) / self.capacity.places))
            self._queue.add(job.owner, job, wait)
            self._wake.notify()

    def attend(self, reading: Reading) -> None:
        """Read prompts beside the answers. Raises Busy, or RequestError if they could never fit the memory."""
        with self._wake:
            if self._closing is not None or not self.alive:
                raise _closing()
            self._readings.add(reading, self._free_bytes, self.capacity.state_bytes, self._answer_s)
            self._errands.append(lambda: self.cache.shrink(self._free_bytes))  # the cache makes room
            self._wake.notify()

    def cancel(self, job: Job) -> None:
        """End a job between two tokens, wherever it is; it still gets a last chunk."""
        with self._wake:
            job.cancelled = True
            self._wake.notify()

    def forget(self, owner: str, keep: str | None = None) -> None:
        """Drop the states of a conversation that is not kept any more (None = all of this owner's), in memory and on disk. Doesn't wait."""

        def errand() -> None:
            self.cache.forget(owner=owner, keep=keep)
            if self.saved is not None:
                self.saved.forget(owner, keep)

        self._later(errand)

    def forget_before(self, gone: Mapping[str, float]) -> None:
        """Drop states of text that owners had forgotten, by whatever process, after it was requested; see `saved_states.forgotten`."""
        self._later(lambda: self.cache.drop(lambda entry: is_forgotten(entry, gone)))

    def forget_model(self, digest: str) -> None:
        """Drop the states of a model that is gone. Returns at once."""
        self._later(lambda: self.cache.forget(model=digest))

    def _later(self, errand: Callable[[], None]) -> None:
        with self._wake:
            self._errands.append(errand)
            self._wake.notify()

    def close(self, grace_s: float = 0.0) -> None:
        """Refuse new jobs, give the running ones so long to finish, end the rest, and return when the thread is done."""
        with self._wake:
            self._closing = time.perf_counter() + grace_s
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._work():
            with self._wake:
                outcomes = self._leave()  # first: what ends keeps its state, which an errand may be there to let go
                while self._errands:
                    spared(self._errands.pop())
            while True:
                with self._wake:
                    job = self._next()
                if job is None:
                    break
                try:
                    self._start(job)  # may read a file: nobody should wait for that in `submit`
                except Exception as error:
                    outcomes.append(self._fail(job, error))
            if self._running:
                outcomes += self._step()
            self._readings.step(bool(self._running), None if self._closing is None else _closing())
            self._post(self.energy.told(outcomes))
        spared(self._save)

    def _work(self) -> bool:
        """Wait for work; False if there is none and none will come."""
        with self._wake:
            if not self._has_work:
                self.energy.rest()
                self._wake.wait(IDLE_S)
            quiet = not self._has_work
        if quiet:
            spared(self._save)
        while quiet:
            wait = self.cache.expire(self.capacity.keep_s)
            self._cached_bytes = self.cache.nbytes
            release_memory()  # of the answers that have ended
            with self._wake:
                quiet = not self._has_work and not self._wake.wait_for(lambda: self._has_work, wait)
        with self._wake:
            return bool(self._running or self._readings or self._queue or self._errands)

    @property
    def _has_work(self) -> bool:
        return bool(self._running or self._readings or self._queue or self._errands or self._closing is not None)

    def _save(self) -> None:
        """Save the newest state of each kept conversation; stop when work comes."""
        if self.saved is not None:
            self.saved.save_newest(self.cache, self._backends, lambda: self._has_work and self._closing is None)

    def _load(self, job: Job) -> None:
        """Load a state from disk if it has read more of the prompt than any in memory."""
        backend = job.model.backend
        self._backends[job.model.digest] = backend
        if self.saved is None or job.request.echo:
            return
        worth = WORTH_WAITING + self.cache.known(job.owner, job.model.digest, job.ids)
        if loaded := self.saved.bring(job.owner, job.model.digest, job.ids, worth, backend):
            saved, state = loaded
            self.cache.put(saved.owner, saved.model, saved.ids.tolist(), state, saved.keep)

    def _leave(self) -> list[Outcome]:
        """End cancelled and late jobs, and all of them when the time to close has come."""
        now = time.perf_counter()
        outcomes: list[Outcome] = []
        for job in self._queue.drop(lambda job: job.cancelled or job.late(now) or self._closing is not None):
            late = Busy("deadline", "The time for this request passed before there was a place for it", "", "Ask again later.", 5.0)
            outcomes.append((job, late if job.late(now) else _closing()))
        for job in [*self._running]:
            if job.cancelled or job.late(now) or (self._closing is not None and now >= self._closing):
                outcomes.append((job, job.decoding.end("deadline" if job.late(now) else "cancelled")))
                self._end(job)
        return outcomes

    def _next(self) -> Job | None:
        """Return the next job if there is a place. If it doesn't fit the memory, nobody overtakes it."""
        if len(self._running) >= self.capacity.places:
            return None
        held = Counter(job.owner for job in self._running)
        turn = self._queue.next(lambda job: held[job.owner] < self.capacity.places_per_owner and not self._awaits(job))
        if turn is None or turn[1].needed_bytes > self._free_bytes:
            return None
        self._queue.take(*turn)
        return turn[1]

    def _start(self, job: Job) -> None:
        """Give a job its place, with the known start of its prompt already read."""
        backend = job.model.backend
        self._load(job)
        prefix = None if job.request.echo else self.cache.find(job.owner, job.model.digest, job.ids)
        self.cache.shrink(self._free_bytes - job.needed_bytes)
        state = prefix.state if prefix else backend.new_state()
        job.decoding = Decoding(job.model, job.request, job.ids, state, job.grammar, job.asked, self._paces.of(backend.runner), job.vectors)
        self.counts.cached_tokens += job.decoding.cached_tokens
        self._running.append(job)

    @property
    def _free_bytes(self) -> int:
        """The memory budget less the running answers' part."""
        return self.capacity.state_bytes - sum(job.needed_bytes for job in self._running) - self._readings.needed_bytes

    def _awaits(self, job: Job) -> bool:
        """Return whether a job of the same owner is just reading the start of this job's prompt."""
        if job.request.echo:
            return False
        readers = (r for r in self._running if r.owner == job.owner and r.model is job.model and r.decoding.reading)
        commons = ((r.decoding.checkpoints, common_length(r.ids[: r.lasting], job.ids)) for r in readers if not r.request.echo)
        soon = max((checkpoints.within(common) for checkpoints, common in commons), default=0)
        return soon >= WORTH_WAITING + self.cache.known(job.owner, job.model.digest, job.ids)

    def _step(self) -> list[Outcome]:
        """Call one backend once, and return the outcomes."""
        start, turn = time.perf_counter(), self._turn()
        self.energy.begin()
        jobs, reading = [job for job, _ in turn], [job.decoding.reading for job, _ in turn]
        company = BatchLoad(reading.count(False), sum(limit for (_, limit), reads in zip(turn, reading, strict=True) if reads))
        segments = [job.decoding.next(limit, company) for job, limit in turn]
        try:
            began = time.perf_counter()
            results, broken = forward_whole(jobs[0].model.backend.runner, segments)
            if pace := self._paces.of(jobs[0].model.backend.runner):
                pace.saw(company, sum(len(segment.ids) for segment in segments) - len(segments), time.perf_counter() - began)
        except Exception as error:
            return [self._fail(job, error) for job in jobs]
        outcomes = [self._fail(jobs[i], error) for i, error in broken.items()]
        for i, (job, was_reading, segment, rows) in enumerate(zip(jobs, reading, segments, results, strict=True)):
            if i in broken:
                continue
            if was_reading:
                self._served[job.owner] += len(segment.ids)
                self.counts.read_tokens += len(segment.ids)
            if was_reading and job.decoding.checkpoints.due(job.decoding.state.length):
                spared(partial(self._remember, job, fork=True))
            try:
                chunk = job.decoding.take(rows)
            except Exception as error:
                outcomes.append(self._fail(job, error))
                continue
            if chunk is not None:
                outcomes.append((job, chunk))
                self.counts.written_tokens += len(chunk.tokens)
                self._after(job, chunk, was_reading)
        self.energy.share([(job, len(segment.ids)) for job, segment in zip(jobs, segments, strict=True)])
        self.counts.steps += 1
        self.counts.rows += sum(len(segment.ids) for segment in segments)
        self.counts.busy_s += time.perf_counter() - start
        return outcomes

    def _turn(self) -> list[tuple[Job, int]]:
        """Return the jobs of this step with their token counts: all writers of one runner, and readers of the least served owners."""
        runners = list(dict.fromkeys(job.model.backend.runner for job in self._running))
        at = runners.index(self._last) + 1 if self._last in runners else 0
        self._last = runners[at % len(runners)]
        mine = [job for job in self._running if job.model.backend.runner is self._last]
        turn = [(job, 1) for job in mine if not job.decoding.reading]
        left = self.capacity.prefill_tokens_beside if turn else self.capacity.prefill_tokens
        for job in sorted((job for job in mine if job.decoding.reading), key=lambda job: self._served[job.owner]):
            if left > 0:
                share = min(left, job.decoding.unread)
                turn.append((job, share))
                left -= share
        return turn

    def _after(self, job: Job, chunk: Chunk, was_reading: bool) -> None:
        """Keep the state for others: when the prompt is read, unless a checkpoint was just kept, and when the answer is written."""
        if chunk.finish is not None:
            self._answer_s += 0.1 * (time.perf_counter() - job.asked - self._answer_s)
            self._end(job)
        elif was_reading and not job.decoding.checkpoints.needed:
            spared(partial(self._remember, job, fork=True))

    def _fail(self, job: Job, error: Exception) -> Outcome:
        """End a job by an error."""
        if job in self._running:
            self._running.remove(job)
        return job, self.failures.error_of(job, error)

    def _end(self, job: Job) -> None:
        self._running.remove(job)
        if not any(other.owner == job.owner for other in self._running):
            del self._served[job.owner]  # whoever comes back is not held to what was before
        spared(partial(self._remember, job, fork=False))

    def _remember(self, job: Job, fork: bool) -> None:
        """Keep a job's state for others; `fork` if the job goes on."""
        if job.request.echo:
            return
        state = job.decoding.state.fork() if fork else job.decoding.state
        if job.lasting is not None and state.length > job.lasting:
            if not job.lasting or job.lasting < state.earliest_rewind:
                return
            state.rewind(job.lasting)
        self.cache.budget_bytes = max(0, self._free_bytes)
        self.cache.put(job.owner, job.model.digest, job.decoding.ids[: state.length], state, job.keep, job.since)
        self._cached_bytes = self.cache.nbytes


def _closing() -> Closing:
    return Closing("server", "The server is shutting down", "", "Ask again in a moment.", 5.0)
