"""Metrics for Prometheus. Figures only: no text, no key."""

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ingle.core.message import Finish, Usage, Verdict

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from ingle.engine.scheduler import Scheduler

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        one = self.registry
        self._requests = Counter("ingle_requests", "Requests by route and status", ["route", "status"], registry=one)
        self._answers = Counter("ingle_answers", "Answers by what ended them", ["finish"], registry=one)
        self._prompt = Counter("ingle_prompt_tokens", "Tokens of prompts, read or known from before", ["source"], registry=one)
        self._written = Counter("ingle_completion_tokens", "Tokens written", registry=one)
        self._drafted = Counter(
            "ingle_drafted_tokens", "Tokens guessed and read ahead, by whether they came true", ["outcome"], registry=one
        )
        self._guards = Counter("ingle_guard", "Verdicts of guards", ["guard", "action"], registry=one)
        self._wrong_keys = Counter("ingle_wrong_keys", "Keys that were unknown or revoked", registry=one)
        self._queued = Histogram("ingle_queue_seconds", "Waiting for a place", buckets=_SECONDS, registry=one)
        self._first = Histogram("ingle_first_token_seconds", "From the request to its first token", buckets=_SECONDS, registry=one)
        self._token = Histogram(
            "ingle_token_seconds", "Writing one token, averaged over an answer", buckets=[s / 50 for s in _SECONDS], registry=one
        )
        self._heard = Counter("ingle_heard_seconds", "Seconds of recordings that were heard", registry=one)
        self._hearing = Histogram("ingle_hearing_seconds", "Hearing one recording", buckets=_SECONDS, registry=one)
        self._spoken = Counter("ingle_spoken_seconds", "Seconds of speech that were made", registry=one)
        self._sound = Histogram("ingle_first_sound_seconds", "From a request to its first sound", buckets=_SECONDS, registry=one)
        Gauge("ingle_start_time_seconds", "When the server started", registry=one).set(time.time())

    def watch(self, scheduler: "Scheduler") -> None:
        """Adds live figures of a scheduler."""
        self.registry.register(_Live(scheduler))

    def request(self, route: str, status: int) -> None:
        """Counts a request."""
        self._requests.labels(route, str(status)).inc()

    def wrong_key(self) -> None:
        """Counts a wrong key."""
        self._wrong_keys.inc()

    def answered(self, finish: Finish, usage: Usage) -> None:
        """Counts an answer."""
        self._answers.labels(finish).inc()
        self._prompt.labels("cached").inc(usage.cached_tokens)
        self._prompt.labels("read").inc(usage.prompt_tokens - usage.cached_tokens)
        self._written.inc(usage.completion_tokens)
        self._drafted.labels("accepted").inc(usage.accepted)
        self._drafted.labels("rejected").inc(usage.drafted - usage.accepted)
        self._queued.observe(usage.queued_s)
        self._first.observe(usage.queued_s + usage.prefill_s)
        if usage.completion_tokens > 1:
            self._token.observe(usage.decode_s / usage.completion_tokens)

    def heard(self, seconds: float, took_s: float) -> None:
        """Counts a recording."""
        self._heard.inc(seconds)
        self._hearing.observe(took_s)

    def began_to_speak(self, waited_s: float) -> None:
        """Counts the first sound of a talk."""
        self._sound.observe(waited_s)

    def spoke(self, seconds: float) -> None:
        """Counts a piece of speech."""
        self._spoken.inc(seconds)

    def judged(self, verdicts: Iterable[Verdict]) -> None:
        """Counts what guards said of a request and its answer."""
        for verdict in verdicts:
            self._guards.labels(verdict.guard, verdict.action).inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Live:
    """Collector that reads the scheduler when Prometheus asks."""

    def __init__(self, scheduler: "Scheduler") -> None:
        self._scheduler = scheduler

    def collect(self) -> "Iterator[Metric]":
        """Yield the current figures."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        scheduler, counts = self._scheduler, self._scheduler.counts
        yield GaugeMetricFamily("ingle_running", "Answers being written", scheduler.running)
        yield GaugeMetricFamily("ingle_queued", "Answers waiting for a place", scheduler.queued)
        yield GaugeMetricFamily("ingle_prefix_cache_bytes", "States of earlier prompts", scheduler.cached_bytes)
        yield CounterMetricFamily("ingle_prefix_cache_evictions", "States that went for the memory budget", scheduler.cache.evicted)
        yield CounterMetricFamily("ingle_steps", "Calls of a backend", counts.steps)
        yield CounterMetricFamily("ingle_step_rows", "Tokens read in all steps", counts.rows)
        yield CounterMetricFamily("ingle_step_seconds", "Time in steps", counts.busy_s)
        joules = CounterMetricFamily("ingle_energy_joules", "Energy of all answers, by where the figure is from", labels=["source"])
        for source, spent in list(scheduler.energy.spent.items()):
            joules.add_metric([source], spent)
        yield joules
