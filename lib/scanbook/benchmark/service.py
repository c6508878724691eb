"""Latency and throughput of a service over HTTP, one request at a time and under load.

`send_in_sequence` is the retinopathy study's measurement: some requests, seconds apart, one at a time. `measure_load`
shows a service in use: several clients, each of which sends again as soon as it has its answer (a closed loop), in
windows that are repeated until they agree. Connections are open before the time starts.

Clients are threads of one process and share its interpreter. A request costs them 0.1 to 0.2 ms of a processor (images
of 40 kB, a server that does nothing), so they reach about 4,000 requests per second; a faster service needs several of
these commands. On the machine of the service they use that much of its processor too.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.benchmark.http_client import ANSWERED, RequestLog, Sender, Target
from scanbook.benchmark.worker import LAST, is_stable, percentile

PAUSE = 0.1
"""Seconds that a client waits after a failed request, which limits the number of failures."""
WINDOWS = 12
STABLE = 0.05
_SLICES = 10
_ROUNDS, _BATCH = 1000, 50


def send_in_sequence(target: Target, requests: int, interval: float, warm_up: int, log: RequestLog) -> None:
    """Send requests one at a time.

    Args:
        target: The service.
        requests: Number of requests that count.
        interval: Seconds from the start of one to the start of the next; more where an answer takes longer.
        warm_up: Number of requests before, without a pause.
        log: Record of the requests, filled one by one, so that an interruption leaves what was measured.
    """
    client = Sender(target)
    for _ in range(warm_up):
        client.send()
    client.log = log
    due = time.perf_counter()
    try:
        for _ in runtime.progress(range(requests), f"requests {interval:g} s apart"):
            time.sleep(max(0.0, due - time.perf_counter()))
            due = time.perf_counter() + interval
            client.send()
    finally:
        client.close()


def summary(seconds: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Return statistics of latencies.

    Args:
        seconds: Latencies of answered requests, at least one.
        seed: Seed of the bootstrap.

    Returns:
        In milliseconds `mean` and `p50` with 95 % intervals (`…_low`, `…_high`: percentile bootstrap over requests),
        `sd` (of the sample), `min`, `p95`, `p99` and `max`; NaN where there are too few requests: one for `sd` and
        intervals, below 20 for p95, below 100 for p99.
    """
    times = 1000 * np.asarray(seconds, dtype=np.float64)
    figures = {"mean": times.mean(), "sd": times.std(ddof=1) if len(times) > 1 else np.nan, "min": times.min()}
    figures |= {"p50": np.median(times), "p95": percentile(times, 95), "p99": percentile(times, 99), "max": times.max()}
    for name, statistic in (("mean", np.mean), ("p50", np.median)):
        low, high = _bootstrap_interval(times, statistic, seed)
        figures |= {f"{name}_low": low, f"{name}_high": high}
    return {name: float(value) for name, value in figures.items()}


def _bootstrap_interval(values: np.ndarray, statistic: Callable[..., Any], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a statistic; NaN for one value."""
    if len(values) < 2:
        return np.nan, np.nan
    generator, shape = np.random.default_rng(seed), (_BATCH, len(values))
    statistics = [statistic(generator.choice(values, shape), axis=1) for _ in range(_ROUNDS // _BATCH)]
    low, high = np.quantile(np.concatenate(statistics), [0.025, 0.975])
    return float(low), float(high)


def measure_load(target: Target, clients: int, seconds: float, warm_up: int, windows: int = WINDOWS) -> dict[str, Any]:
    """Measure a service under the load of clients that send again as soon as they have their answer.

    Windows are repeated until the medians of the last three, and their rates, differ by at most `STABLE`, as a share;
    the figures are those of these three. A client waits `PAUSE` seconds after a failure.

    Args:
        target: The service.
        clients: Number of clients, each with its own connection.
        seconds: Length of a window.
        warm_up: Requests of each client before the first window.
        windows: Most windows.

    Returns:
        `clients`, `windows`, `stable`, `requests` (answered), `per_second` with `low` and `high` (95 %, bootstrap over
        tenths of the windows), `p50`, `p95` and `p99` in ms, `errors` by outcome over all windows, `problem`, the first
        failure, and `connections`.
    """
    every = [Sender(target, first) for first in range(clients)]
    ready, stop = threading.Barrier(clients + 1), threading.Event()
    threads = [
        threading.Thread(target=_send_repeatedly, args=(client, warm_up, ready, stop), daemon=True) for client in every
    ]
    for thread in threads:
        thread.start()
    latencies: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    try:
        ready.wait()
        edges, starts = [time.perf_counter()], [0] * clients
        for _ in runtime.progress(range(windows), f"windows of {clients} clients"):
            time.sleep(seconds)
            edges.append(time.perf_counter())
            # a client records a latency and then its end: requests with an end are complete
            stops = [len(client.ends) for client in every]
            spans = [slice(*span) for span in zip(starts, stops, strict=True)]
            requests = list(zip(every, spans, strict=True))
            latencies.append(np.concatenate([client.log.seconds[span] for client, span in requests]))
            ends.append(np.concatenate([client.ends[span] for client, span in requests]))
            starts = stops
            failing = any(client.log.problem for client in every)
            if (failing and not len(latencies[-1])) or _agree(latencies, np.diff(edges)):
                break
    finally:
        stop.set()
    for thread in threads:
        thread.join()  # its last request must not be load for the next clients
    total = RequestLog(
        outcomes=sum((client.log.outcomes for client in every), Counter()),
        problem=next((client.log.problem for client in every if client.log.problem), ""),
        connections=sum(client.log.connections for client in every),
    )
    times = 1000 * np.concatenate(latencies[-LAST:])
    last = edges[-len(latencies[-LAST:]) - 1 :]
    low, high = _rate_interval(ends[-LAST:], last)
    return {
        "clients": clients,
        "windows": len(latencies),
        "stable": _agree(latencies, np.diff(edges)),
        "requests": len(times),
        "per_second": len(times) / (last[-1] - last[0]),
        "low": low,
        "high": high,
        "p50": float(np.median(times)) if len(times) else np.nan,
        "p95": percentile(times, 95),
        "p99": percentile(times, 99),
        "errors": total.errors,
        "problem": total.problem,
        "connections": total.connections,
    }


def _send_repeatedly(client: Sender, warm_up: int, ready: threading.Barrier, stop: threading.Event) -> None:
    try:
        for _ in range(warm_up):
            client.send()
        client.reset()
    except BaseException:
        ready.abort()  # otherwise the others would wait for ever
        raise
    ready.wait()
    while not stop.is_set():
        if client.send() != ANSWERED:
            stop.wait(PAUSE)
    client.close()


def _agree(latencies: Sequence[np.ndarray], spans: np.ndarray) -> bool:
    """Return whether the last windows' medians, and their rates, differ by no more than `STABLE` of the smallest."""
    if any(not len(times) for times in latencies[-LAST:]):
        return False
    medians = [float(np.median(times)) for times in latencies[-LAST:]]
    rates = [len(times) / span for times, span in zip(latencies[-LAST:], spans[-LAST:], strict=True)]
    return is_stable(medians, STABLE) and is_stable(rates, STABLE)


def _rate_interval(ends: Sequence[np.ndarray], edges: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of answers per second: bootstrap over the tenths of all windows."""
    rates = []
    for times, start, stop in zip(ends, edges[:-1], edges[1:], strict=True):
        counts, _ = np.histogram(times, bins=_SLICES, range=(start, stop))
        rates.append(counts * _SLICES / (stop - start))
    return _bootstrap_interval(np.concatenate(rates), np.mean)
