"""`scanbook latency`: measures a service, prints the figures line by line and writes them to a file."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scanbook import runtime, store
from scanbook.benchmark import cost, http_client, service
from scanbook.errors import RunError
from scanbook.store.writing import plain

_ROW = "{:>7}  {:>10}  {:>18}  {:>8}  {:>8}  {:>8}  {:>8}  {:>15}"
_HEAD = ("clients", "requests/s", "95 % interval", "p50, ms", "p95, ms", "p99, ms", "failed", "USD per million")


@dataclass(frozen=True)
class Plan:
    """Plan of the measurement.

    Attributes:
        requests: Number of requests sent one at a time; 0 for none.
        interval: Seconds from one to the next.
        warm_up: Number of requests before, which do not count.
        concurrency: Numbers of clients of the load test; none for no load test.
        seconds: Length of a window of the load test.
        price: What an hour of the service's machine costs, in USD; None where it is not known.
    """

    requests: int = 25
    interval: float = 5.0
    warm_up: int = 3
    concurrency: tuple[int, ...] = ()
    seconds: float = 10.0
    price: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("requests", 0), ("interval", 0), ("warm_up", 0)):
            value = getattr(self, name)
            if not least <= value < math.inf:
                raise RunError(f"--{name.replace('_', '-')} is {value}; expected {least} or more")
        for name in ("seconds", "price"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise RunError(f"--{name} is {value}; expected a number above 0")
        if not self.requests and not self.concurrency:
            raise RunError("nothing to measure: --requests is 0 and --concurrency names no clients; give one of them")


def parse_counts(text: str) -> tuple[int, ...]:
    """Parse numbers of clients: "1,2,4" is (1, 2, 4).

    Raises:
        RunError: A number is not a whole number above 0.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise RunError(f"--concurrency is {text!r}; expected numbers of clients, such as 1,2,4,8")
    return tuple(int(word) for word in words)


def run(target: http_client.Target, plan: Plan, output: Path | None = None) -> dict[str, Any]:
    """Measure a service and print the figures, after an interruption those so far.

    Args:
        target: The service.
        plan: Plan of the measurement.
        output: File for the figures, JSON; None for none.

    Returns:
        `url`, `plan`, `sequential` and `load`, as `service` describes them, with `usd_per_million` where a price is
        known; None and [] where nothing was measured.

    Raises:
        RunError: No service listens, or no request was answered.
    """
    http_client.check_service(target)
    size = sum(len(body) for _, body in target.bodies) / len(target.bodies) / 1000
    files = "one image" if len(target.bodies) == 1 else f"{len(target.bodies)} images in turn"
    print(f"{target.url}: {files}, {size:,.0f} kB per request", flush=True)
    results: dict[str, Any] = {"url": target.url, "plan": asdict(plan), "sequential": None, "load": []}
    try:
        if plan.requests:
            log = http_client.RequestLog()
            try:
                _announce(
                    f"{plan.requests} requests, {plan.interval:g} s apart, after {plan.warm_up} that do not count"
                )
                service.send_in_sequence(target, plan.requests, plan.interval, plan.warm_up, log)
            finally:
                results["sequential"] = _summarise_sequence(log, plan.price)
        for clients in plan.concurrency:
            _announce(f"{clients} client{'' if clients == 1 else 's'}, windows of {plan.seconds:g} s until they agree")
            row = service.measure_load(target, clients, plan.seconds, plan.warm_up)
            if plan.price and row["requests"]:
                row["usd_per_million"] = float(cost.per_million_busy(plan.price, row["per_second"]))
            if not results["load"]:
                print(f"\nLoad; each client sends again after its answer:\n{_ROW.format(*_HEAD)}")
            results["load"].append(row)
            print(_format_load(row), flush=True)
    finally:
        if output:
            # JSON has no NaN
            store.write_json(output, json.loads(json.dumps(results, default=plain), parse_constant=lambda _: None))
    if results["load"] and plan.price:
        print(f"  USD per million predictions of a busy machine, at {plan.price:g} USD per hour")
    sequential = results["sequential"]
    answered = sum(row["requests"] for row in results["load"]) + (sequential["requests"] if sequential else 0)
    if not answered:
        parts = [sequential, *results["load"]]
        problem = next((part["problem"] for part in parts if part and part["problem"]), "no answer")
        raise RunError(f"{target.url} answered no request: {problem}; check the address, --field and --header")
    return results


def _announce(stage: str) -> None:
    if not runtime.interactive():  # a progress bar shows it otherwise
        print(f"{stage} …", file=sys.stderr, flush=True)


def _summarise_sequence(log: http_client.RequestLog, price: float | None) -> dict[str, Any]:
    """Print the figures of the sequential requests and return them."""
    count = len(log.seconds)
    figures: dict[str, Any] = {"requests": count, "errors": log.errors, "problem": log.problem}
    print(f"\nOne request at a time: {count} answered" + _failed(log.errors, log.problem))
    if not count:
        return figures
    figures |= service.summary(log.seconds)
    for name in ("mean", "p50"):
        interval = f"95 % interval {figures[f'{name}_low']:.1f} to {figures[f'{name}_high']:.1f}" if count > 1 else ""
        print(f"  {name:4} {figures[name]:9.1f} ms   {interval}".rstrip())
    for name in ("sd", "min", "p95", "p99", "max"):
        text = f"{figures[name]:9.1f} ms" if math.isfinite(figures[name]) else "        –      too few requests"
        print(f"  {name:4} {text}")
    if price:
        # as published: the hourly price for the duration of the mean request
        figures["usd_per_million"] = float(cost.per_million(price, figures["mean"] / 1000))
        print(
            f"  {figures['usd_per_million']:.4g} USD per million predictions, one at a time, at {price:g} USD per hour"
        )
    return figures


def _failed(errors: Mapping[str, int], problem: str) -> str:
    if not errors:
        return ", none failed"
    outcomes = ", ".join(f"{count} × {outcome}" for outcome, count in errors.items())
    return f"; {outcomes} (first: {problem})"


def _format_load(row: Mapping[str, Any]) -> str:
    """Return a row of the load test as text, with its failures."""
    times = [f"{row[name]:.1f}" if math.isfinite(row[name]) else "–" for name in ("p50", "p95", "p99")]
    interval = f"{row['low']:,.1f} to {row['high']:,.1f}"
    cost = f"{row['usd_per_million']:.4g}" if "usd_per_million" in row else "–"
    failed = sum(row["errors"].values())
    text = _ROW.format(row["clients"], f"{row['per_second']:,.1f}", interval, *times, failed, cost)
    if failed:
        text += f"\n         {_failed(row['errors'], row['problem']).removeprefix('; ')}"
    if not row["stable"]:
        text += f"\n         not stable within {100 * service.STABLE:.0f} % after {row['windows']} windows"
    return text
