"""How fast a service answers over HTTP, one request at a time and under load.

`sequential` is the retinopathy study's measurement: some requests, seconds apart, each alone. It says nothing of a
service in use, so `under_load` replaces it: several clients, each asking again as soon as it is answered (a closed
loop), in windows that are repeated until they agree. Connections are open before the clock starts.

Clients are threads of one process and share its interpreter. A request costs them 0.2 to 0.3 ms of a processor (images
of 40 kB, against a server that does nothing), so that they reach some 3,000 requests a second; a faster service needs
several of these commands. On the machine of the service they take that much of its processor too.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.benchmark.client import ANSWERED, Calls, Client, Target
from scanbook.benchmark.windows import LAST, percentile, settled

PAUSE = 0.1
"""Seconds that a client waits after a request that failed, so that failures do not come by the thousand."""
WINDOWS = 12
STABLE = 0.05
_SLICES = 10
_ROUNDS = 1000
# bootstrap values held at a time
_CHUNK = 2_000_000


def sequential(asked: Target, requests: int, interval: float, warm_up: int, calls: Calls) -> None:
    """Asks again and again, one request at a time.

    Args:
        asked: The service.
        requests: How many count.
        interval: Seconds from the start of one to the start of the next, or more where an answer takes longer.
        warm_up: How many go before, without a pause.
        calls: Where they are noted, one by one: what was measured stays when this is interrupted.
    """
    client = Client(asked)
    for _ in range(warm_up):
        client.ask()
    client.calls = calls
    due = time.perf_counter()
    try:
        for _ in runtime.progress(range(requests), f"requests {interval:g} s apart"):
            time.sleep(max(0.0, due - time.perf_counter()))
            due = time.perf_counter() + interval
            client.ask()
    finally:
        client.close()


def summary(seconds: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Latencies in a few figures.

    Args:
        seconds: Of answered requests, at least one.
        seed: Of the bootstrap.

    Returns:
        In milliseconds `mean` and `p50` with 95 % intervals (`…_low`, `…_high`: percentile bootstrap over requests),
        `sd` (of the sample), `min`, `p95`, `p99` and `max`; NaN where there are too few: one for `sd` and intervals,
        below 20 for p95, below 100 for p99.
    """
    times = 1000 * np.asarray(seconds, dtype=np.float64)
    count, random = len(times), np.random.default_rng(seed)
    means, medians = [np.array([np.nan])], [np.array([np.nan])]
    step = max(1, _CHUNK // count)
    for start in range(0, _ROUNDS if count > 1 else 0, step):
        drawn = times[random.integers(count, size=(min(step, _ROUNDS - start), count))]
        means.append(drawn.mean(1))
        medians.append(np.median(drawn, axis=1))
    found = {"mean": times.mean(), "sd": times.std(ddof=1) if count > 1 else np.nan, "min": times.min()}
    found |= {"p50": np.median(times), "p95": percentile(times, 95), "p99": percentile(times, 99), "max": times.max()}
    for name, values in (("mean", means), ("p50", medians)):
        low, high = np.quantile(np.concatenate(values[1:] or values), [0.025, 0.975])
        found |= {f"{name}_low": low, f"{name}_high": high}
    return {name: float(value) for name, value in found.items()}


def under_load(asked: Target, clients: int, seconds: float, warm_up: int, windows: int = WINDOWS) -> dict[str, Any]:
    """Load by clients that ask again as soon as they are answered.

    Windows are repeated until the medians of the last three, and their rates, differ by at most `STABLE`, as a share;
    the figures are of these three. A client that was refused or failed waits `PAUSE` seconds.

    Args:
        asked: The service.
        clients: How many ask at a time, each over a connection of its own.
        seconds: Of a window.
        warm_up: Requests of each client before the first window.
        windows: At most so many.

    Returns:
        `clients`, `windows`, `stable`, `requests` (answered), `per_second` with `low` and `high` (95 %, bootstrap over
        tenths of the windows), `p50`, `p95` and `p99` in ms, `errors` by outcome over all windows, `problem`, the first
        of them, and `connections`.
    """
    every = [Client(asked, first) for first in range(clients)]
    ready, stop = threading.Barrier(clients + 1), threading.Event()
    threads = [threading.Thread(target=_keep_asking, args=(each, warm_up, ready, stop), daemon=True) for each in every]
    for thread in threads:
        thread.start()
    found: list[list[np.ndarray]] = []
    try:
        ready.wait()
        edges, seen = [time.perf_counter()], [0] * clients
        for _ in runtime.progress(range(windows), f"windows of {clients} clients"):
            time.sleep(seconds)
            edges.append(time.perf_counter())
            # a client notes a latency and then its end: as many as have an end are whole
            until = [len(each.ends) for each in every]
            spans = [slice(*ends) for ends in zip(seen, until, strict=True)]
            found.append(
                [
                    np.concatenate(
                        [np.array(each.calls.seconds[span]) for each, span in zip(every, spans, strict=True)]
                    ),
                    np.concatenate([np.array(each.ends[span]) for each, span in zip(every, spans, strict=True)]),
                ]
            )
            seen = until
            failing = any(each.calls.problem for each in every)
            if (failing and not len(found[-1][0])) or _agree(found, np.diff(edges)):
                break
    finally:
        stop.set()
    for thread in threads:
        thread.join()  # its last request is still on its way, and is not the next clients' load
    outcomes: Counter[str] = Counter()
    for each in every:
        outcomes.update(each.calls.outcomes)
    errors = {outcome: count for outcome, count in outcomes.most_common() if outcome != ANSWERED}
    last = found[-LAST:]
    times = 1000 * np.concatenate([window[0] for window in last])
    low, high = _rate_interval(last, edges[-len(last) - 1 :])
    return {
        "clients": clients,
        "windows": len(found),
        "stable": _agree(found, np.diff(edges)),
        "requests": len(times),
        "per_second": len(times) / (edges[-1] - edges[-len(last) - 1]),
        "low": low,
        "high": high,
        "p50": float(np.median(times)) if len(times) else np.nan,
        "p95": percentile(times, 95),
        "p99": percentile(times, 99),
        "errors": errors,
        "problem": next((each.calls.problem for each in every if each.calls.problem), ""),
        "connections": sum(each.calls.connections for each in every),
    }


def _keep_asking(client: Client, warm_up: int, ready: threading.Barrier, stop: threading.Event) -> None:
    try:
        for _ in range(warm_up):
            client.ask()
        client.forget()
    except BaseException:
        ready.abort()  # else the others would wait for ever
        raise
    ready.wait()
    while not stop.is_set():
        if client.ask() != ANSWERED:
            stop.wait(PAUSE)
    client.close()


def _agree(found: Sequence[Sequence[np.ndarray]], spans: np.ndarray) -> bool:
    """Whether the last windows' medians, and their rates, differ by no more than `STABLE` of the smallest."""
    if any(not len(times) for times, _ in found[-LAST:]):
        return False
    medians = [float(np.median(times)) for times, _ in found[-LAST:]]
    rates = [len(times) / span for (times, _), span in zip(found[-LAST:], spans[-LAST:], strict=True)]
    return settled(medians, STABLE) and settled(rates, STABLE)


def _rate_interval(found: Sequence[Sequence[np.ndarray]], edges: Sequence[float]) -> tuple[float, float]:
    """95 % interval of answers a second: the tenths of all windows, drawn with replacement."""
    rates = []
    for (_, ends), start, end in zip(found, edges[:-1], edges[1:], strict=True):
        counts, _ = np.histogram(ends, bins=_SLICES, range=(start, end))
        rates.append(counts * _SLICES / (end - start))
    each = np.concatenate(rates)
    drawn = np.random.default_rng(0).choice(each, size=(_ROUNDS, len(each))).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)
