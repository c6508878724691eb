"""What `scanbook latency` does: measures a service, says so line by line, and keeps the figures."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scanbook import runtime, store
from scanbook.benchmark import client, cost, service
from scanbook.errors import RunError

_ROW = "{:>7}  {:>10}  {:>18}  {:>8}  {:>8}  {:>8}  {:>8}  {:>15}"
_HEAD = ("clients", "requests/s", "95 % interval", "p50, ms", "p95, ms", "p99, ms", "failed", "USD per million")


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        requests: How many are sent one at a time; 0 for none.
        interval: Seconds from one to the next.
        warm_up: Requests before, which do not count.
        concurrency: Numbers of clients of the load test; none for no load test.
        seconds: Of each of its windows.
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


def counts(text: str) -> tuple[int, ...]:
    """Numbers of clients: "1,2,4" is (1, 2, 4).

    Raises:
        RunError: One is no whole number above 0.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise RunError(f"--concurrency is {text!r}; expected numbers of clients, such as 1,2,4,8")
    return tuple(int(word) for word in words)


def run(asked: client.Target, plan: Plan, output: Path | None = None) -> dict[str, Any]:
    """Measures a service and prints what was found, as far as it came when it is interrupted.

    Args:
        asked: The service.
        plan: What is measured.
        output: File for the figures, JSON; None for none.

    Returns:
        `url`, `plan`, `sequential` and `load`, as `service` describes them, with `usd_per_million` where a price is
        known; None and [] for what was not measured.

    Raises:
        RunError: Nobody listens, or no request was answered.
    """
    client.check(asked)
    size = sum(len(body) for _, body in asked.bodies) / len(asked.bodies) / 1000
    files = "one image" if len(asked.bodies) == 1 else f"{len(asked.bodies)} images in turn"
    print(f"{asked.url}: {files}, {size:,.0f} kB a request", flush=True)
    found: dict[str, Any] = {"url": asked.url, "plan": asdict(plan), "sequential": None, "load": []}
    try:
        if plan.requests:
            calls = client.Calls()
            try:
                _announce(
                    f"{plan.requests} requests, {plan.interval:g} s apart, after {plan.warm_up} that do not count"
                )
                service.sequential(asked, plan.requests, plan.interval, plan.warm_up, calls)
            finally:
                found["sequential"] = _sequential(calls, plan.price)
        for clients in plan.concurrency:
            _announce(f"{clients} client{'' if clients == 1 else 's'}, windows of {plan.seconds:g} s until they agree")
            row = service.under_load(asked, clients, plan.seconds, plan.warm_up)
            if plan.price and row["requests"]:
                row["usd_per_million"] = float(cost.per_million_busy(plan.price, row["per_second"]))
            if not found["load"]:
                print(f"\nLoad, each client asking again once it is answered:\n{_ROW.format(*_HEAD)}")
            found["load"].append(row)
            print(_loaded(row), flush=True)
    finally:
        if output:
            store.write_json(output, _plain(found))
    if found["load"] and plan.price:
        print(f"  USD per million predictions of a machine kept busy, at {plan.price:g} USD an hour")
    sequential = found["sequential"]
    answered = sum(row["requests"] for row in found["load"]) + (sequential["requests"] if sequential else 0)
    if not answered:
        parts = [sequential, *found["load"]]
        problem = next((part["problem"] for part in parts if part and part["problem"]), "no answer")
        raise RunError(f"{asked.url} answered no request: {problem}; check the address, --field and --header")
    return found


def _announce(stage: str) -> None:
    if not runtime.interactive():  # else a bar says so
        print(f"{stage} …", file=sys.stderr, flush=True)


def _sequential(calls: client.Calls, price: float | None) -> dict[str, Any]:
    """Prints the sequential requests' figures and returns them."""
    count = len(calls.seconds)
    found: dict[str, Any] = {"requests": count, "errors": calls.errors, "problem": calls.problem}
    print(f"\nOne request at a time: {count} answered" + _failed(calls.errors, calls.problem))
    if not count:
        return found
    found |= service.summary(calls.seconds)
    for name in ("mean", "p50"):
        between = f"95 % interval {found[f'{name}_low']:.1f} to {found[f'{name}_high']:.1f}" if count > 1 else ""
        print(f"  {name:4} {found[name]:9.1f} ms   {between}".rstrip())
    for name in ("sd", "min", "p95", "p99", "max"):
        text = f"{found[name]:9.1f} ms" if math.isfinite(found[name]) else "        –      too few requests"
        print(f"  {name:4} {text}")
    if price:
        # the published way: the hourly price for as long as the mean request takes
        found["usd_per_million"] = float(cost.per_million(price, found["mean"] / 1000))
        print(f"  {found['usd_per_million']:.4g} USD per million predictions, one at a time, at {price:g} USD an hour")
    return found


def _failed(errors: Mapping[str, int], problem: str) -> str:
    if not errors:
        return ", none failed"
    listed = ", ".join(f"{count} × {outcome}" for outcome, count in errors.items())
    return f"; {listed} (first: {problem})"


def _loaded(row: Mapping[str, Any]) -> str:
    """A row of the load test, and what is to be said of it."""
    times = [f"{row[name]:.1f}" if math.isfinite(row[name]) else "–" for name in ("p50", "p95", "p99")]
    between = f"{row['low']:,.1f} to {row['high']:,.1f}"
    cost = f"{row['usd_per_million']:.4g}" if "usd_per_million" in row else "–"
    failed = sum(row["errors"].values())
    text = _ROW.format(row["clients"], f"{row['per_second']:,.1f}", between, *times, failed, cost)
    if failed:
        text += f"\n         {_failed(row['errors'], row['problem']).removeprefix('; ')}"
    if not row["stable"]:
        text += f"\n         not stable within {100 * service.STABLE:.0f} % after {row['windows']} windows"
    return text


def _plain(value: Any) -> Any:
    """A value as JSON keeps it: NaN is null."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
