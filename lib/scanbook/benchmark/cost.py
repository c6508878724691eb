"""Cost of a prediction, measured and published; and published tables recomputed from their raw figures.

With one request at a time, as in the retinopathy study, a prediction costs the hourly price for its duration. On a busy
machine it costs the hourly price divided by the predictions of an hour. A cheaper hour can mean a more expensive
prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from scanbook.benchmark import scaling
from scanbook.config import Published
from scanbook.config.prices import Price
from scanbook.errors import StudyError

PUBLISHED = "published"
MEASURED = "measured"
WHAT_IF = "what-if"
COLUMNS = ["where", "network", "engine", "usd_per_hour", "milliseconds", "usd_per_million", "images_per_second"]
COLUMNS += ["usd_per_million_busy", "kind"]


@dataclass(frozen=True)
class Measurement:
    """Speed of one network in one engine on this machine.

    Attributes:
        network: Its name, with the image size where that matters.
        engine: The engine for one image at a time.
        milliseconds: Mean time of one image at a time.
        images_per_second: Throughput of a busy machine, by the fastest engine.
    """

    network: str
    engine: str
    milliseconds: float
    images_per_second: float

    @classmethod
    def best(cls, table: pd.DataFrame, network: str) -> Measurement:
        """Return the best of a table of `inference`, without refused engines.

        Args:
            table: Columns engine, precision, mode, threads, batch, images_per_second and refused.
            network: Its name, with the image size where that matters.
        """
        accepted = table[table["refused"] == ""]
        # one caller waits for each answer, so the mean time is the inverse of the rate
        single = accepted[(accepted["batch"] == 1) & (accepted["mode"] == "latency")]
        fastest = single.loc[single["images_per_second"].idxmax()]
        threads = f"{fastest['threads']} thread{'' if fastest['threads'] == 1 else 's'}"
        engine = f"{fastest['engine']} {fastest['precision']}, {threads}"
        rate = fastest["images_per_second"]
        return cls(network, engine, 1000 / float(rate), float(accepted["images_per_second"].max()))


def per_million(usd_per_hour: ArrayLike, seconds: ArrayLike) -> Any:
    """Return USD per million predictions, one at a time: USD/h ÷ 3600 × seconds × 10⁶.

    Args:
        usd_per_hour: Price of the machine.
        seconds: Mean time of a prediction; only the mean gives the right sum over many.
    """
    return np.asarray(usd_per_hour, dtype=np.float64) / 3600 * np.asarray(seconds, dtype=np.float64) * 1e6


def per_million_busy(usd_per_hour: ArrayLike, per_second: ArrayLike) -> Any:
    """Return USD per million predictions of a busy machine: USD/h ÷ (predictions per second × 3600) × 10⁶.

    Args:
        usd_per_hour: Price of the machine.
        per_second: Throughput of the machine.
    """
    return per_million(usd_per_hour, 1 / np.asarray(per_second, dtype=np.float64))


def published_costs(tables: Mapping[str, Published]) -> pd.DataFrame:
    """Return the published measurements of a study's tables with `recompute: cost`.

    Returns:
        One row per instance and network: `where` (the instance), `network`, `usd_per_hour`, `milliseconds`,
        `usd_per_million` (computed) and `kind`; empty where no table has one.
    """
    rows = []
    for table in tables.values():
        for instance, values in table.rows.items() if table.recompute == "cost" else ():
            for column, value in values.items():
                network, is_time = column.removesuffix(" ms"), column.endswith(" ms")
                if is_time and value is not None:
                    rows.append((instance, network, float(values["USD an hour"] or 0), float(value)))
    costs = pd.DataFrame(rows, columns=["where", "network", "usd_per_hour", "milliseconds"])
    costs["usd_per_million"] = per_million(costs["usd_per_hour"], costs["milliseconds"] / 1000)
    return costs.assign(kind=PUBLISHED)


def compare_costs(
    measured: Sequence[Measurement],
    prices: Mapping[str, Price],
    price: float | None,
    published: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return the cost of a prediction on this machine and the published costs.

    Args:
        measured: This machine's figures.
        prices: The price table. Without a `price` of this machine, its predictions are shown at each of these prices,
            except those of several GPUs; this does not show how fast these instances are.
        price: Price of an hour of this machine, in USD; None where it is unknown.
        published: Rows of `published_costs`; None for none.

    Returns:
        One row per place and network: `where`, `network`, `engine`, `usd_per_hour`, `milliseconds` (mean, one image),
        `usd_per_million` at that, `images_per_second` and `usd_per_million_busy` (NaN where not measured), and `kind`:
        "published", "measured" or "what-if".
    """
    if price is None:
        # several GPUs are rented to train, not for one prediction at a time
        single = {name: entry.usd_per_hour for name, entry in prices.items() if entry.gpus < 2}
        hours = {f"this machine, if it cost what {name} costs": usd for name, usd in single.items()}
    else:
        hours = {"this machine": price}
    rows = [vars(item) | {"where": where, "usd_per_hour": usd} for item in measured for where, usd in hours.items()]
    here = pd.DataFrame(rows).assign(kind=MEASURED if price is not None else WHAT_IF)
    costs = pd.concat([published, here], ignore_index=True).reindex(columns=COLUMNS)
    costs["usd_per_million"] = per_million(costs["usd_per_hour"], costs["milliseconds"] / 1000)
    costs["usd_per_million_busy"] = per_million_busy(costs["usd_per_hour"], costs["images_per_second"])
    return costs


def break_even(measured: Sequence[Measurement], published: pd.DataFrame) -> pd.DataFrame:
    """Return the hourly price below which a prediction of this machine is cheaper than a published one.

    Where the networks differ, the figures compare predictions, not machines.

    Args:
        measured: This machine's figures.
        published: Rows of `published_costs`.

    Returns:
        One row per published and measured figure: `where`, `network` and `usd_per_million` (published),
        `network_here`, `engine`, and the prices in USD per hour `break_even`, one image at a time, and
        `break_even_busy`, for a busy machine.
    """
    here = pd.DataFrame(measured).rename(columns={"network": "network_here"})
    pairs = published[["where", "network", "usd_per_million"]].merge(here, how="cross")
    pairs["break_even"] = pairs["usd_per_million"] / per_million(1.0, pairs["milliseconds"] / 1000)
    pairs["break_even_busy"] = pairs["usd_per_million"] / per_million_busy(1.0, pairs["images_per_second"])
    return pairs.drop(columns=["milliseconds", "images_per_second"])


def compare_instances(published: pd.DataFrame) -> pd.DataFrame:
    """Return for each pair of instances how much cheaper the hour of one is, and how the cost of a prediction changes.

    Args:
        published: Rows of `published_costs`.

    Returns:
        One row per pair and network: `of` and `instead`, the more expensive and the cheaper hour; `network`; `hour` and
        `prediction`, changes as shares (−0.24: 24 % less). First come pairs whose cheaper hour means a more expensive
        prediction of some network, those with the greatest saving of an hour on top.
    """
    costs = published[["where", "network", "usd_per_hour", "usd_per_million"]]
    pairs = costs.merge(costs, on="network", suffixes=("", "_new")).query("usd_per_hour_new < usd_per_hour")
    table = pairs[["where", "where_new", "network"]].set_axis(["of", "instead", "network"], axis=1)
    table = table.assign(
        hour=pairs["usd_per_hour_new"] / pairs["usd_per_hour"] - 1,
        prediction=pairs["usd_per_million_new"] / pairs["usd_per_million"] - 1,
    )
    largest = table.groupby(["of", "instead"])["prediction"].transform("max")
    table = table.assign(cheaper=largest <= 0).sort_values(["cheaper", "hour"], kind="stable", ignore_index=True)
    return table.drop(columns="cheaper")


def select_example(published: pd.DataFrame) -> tuple[str, str] | None:
    """Return the first pair of `compare_instances` whose cheaper hour means a more expensive prediction.

    Args:
        published: Rows of `published_costs`.

    Returns:
        Names of the more expensive and the cheaper hour; None where every cheaper hour means a cheaper prediction.
    """
    pairs = compare_instances(published)
    pairs = pairs[pairs["prediction"] > 0]
    return None if pairs.empty else (str(pairs["of"].iloc[0]), str(pairs["instead"].iloc[0]))


def describe_example(published: pd.DataFrame) -> str:
    """Return the pair of `select_example` in a sentence; "" where there is none."""
    pair = select_example(published)
    if pair is None:
        return ""
    pairs = compare_instances(published)
    rows = pairs[(pairs["of"] == pair[0]) & (pairs["instead"] == pair[1])]
    shares = dict(zip(rows["network"], 100 * rows["prediction"], strict=True))
    changes = ", ".join(
        f"a prediction of {network} {abs(share):.1f} % {'more' if share > 0 else 'less'}"
        for network, share in shares.items()
    )
    saved = -100 * rows["hour"].iloc[0]
    return f"An hour of {pair[1]} costs {saved:.1f} % less than one of {pair[0]}; {changes}."


def price_table(prices: Mapping[str, Price]) -> pd.DataFrame:
    """Return the price table with its sources: one row per instance, one column per key of `Price`."""
    rows = [price.model_dump() for price in prices.values()]
    return pd.DataFrame(rows, index=list(prices), columns=list(Price.model_fields)).rename_axis("instance")


def recompute(name: str, tables: Mapping[str, Published]) -> pd.DataFrame:
    """Return a published table with its printed figures and those recomputed from its raw figures.

    Args:
        name: Name of the table; its `recompute` says how.
        tables: All tables of the study.

    Returns:
        The table; a recomputed column becomes two, "… (published)" and "… (recomputed)".

    Raises:
        StudyError: A comparison names an unknown table or instance.
    """
    table = tables[name]
    printed = pd.DataFrame(list(table.rows.values()), index=list(table.rows), dtype=object)
    if table.recompute == "cost":
        new = _costs(printed)
    elif table.recompute == "comparison":
        new = _comparisons(name, tables, printed)
    else:
        new = _speedups(printed, table.of if table.recompute == "scaled_speedup" else "")
    columns = {}
    for column in printed:
        columns |= {f"{column} (published)": printed[column]} if column in new else {column: printed[column]}
        columns |= {f"{column} (recomputed)": new[column]} if column in new else {}
    columns |= {f"{column} (recomputed)": new[column] for column in new if column not in printed}
    return pd.DataFrame(columns, index=printed.index, dtype=object)


def _speedups(printed: pd.DataFrame, work: str) -> pd.DataFrame:
    seconds = printed["seconds"].astype(float).tolist()
    workers = printed.get("workers", pd.Series(np.nan, printed.index)).astype(float).tolist()
    strong = scaling.table(seconds, workers)
    columns = {"speed-up": strong["speedup"], "efficiency": strong["efficiency"]}
    if work:
        weak = scaling.table(seconds, workers, printed[work].astype(float).tolist())
        columns |= {"efficiency": weak["efficiency"], "scaled speed-up": weak["speedup"]}
    return pd.DataFrame({column: values.round(3).to_numpy() for column, values in columns.items()}, index=printed.index)


def _costs(printed: pd.DataFrame) -> pd.DataFrame:
    price = printed["USD an hour"].astype(float)
    times = {column.removesuffix(" ms"): printed[column].astype(float) for column in printed if column.endswith(" ms")}
    costs = {f"{network} USD per million": per_million(price, time / 1000) for network, time in times.items()}
    return pd.DataFrame(costs, index=printed.index).round(2)


def _comparisons(name: str, tables: Mapping[str, Published], printed: pd.DataFrame) -> pd.DataFrame:
    """Return speed-ups of `first` over `second` by network, and the change of the costs of hour and prediction."""
    of = tables[name].of
    if of not in tables or tables[of].recompute != "cost":
        raise StudyError(f"published.{name}.of is {of!r}; expected a published table with recompute: cost")
    measured = published_costs({of: tables[of]}).set_index(["where", "network"])
    networks = list(dict.fromkeys(measured.index.get_level_values("network")))
    rows = {}
    for row, values in printed.iterrows():
        pair = []
        for column in ("first", "second"):
            instance = values[column]
            if instance not in tables[of].rows:
                names = ", ".join(tables[of].rows)
                raise StudyError(f"published.{name}: {column} of {row!r} is {instance!r}; expected one of {names}")
            pair.append(measured.loc[instance])
        new, old = pair
        faster = old["milliseconds"] / new["milliseconds"]
        hour = new["usd_per_hour"].iloc[0] / old["usd_per_hour"].iloc[0] - 1
        prediction = new["usd_per_million"] / old["usd_per_million"] - 1
        # as the study prints it: a factor, or a change in percent
        as_change = {network: str(values.get(network, "")).endswith("%") for network in networks}
        rows[row] = {
            **{
                network: _percent(faster[network] - 1) if as_change[network] else round(faster[network], 3)
                for network in networks
            },
            "hourly cost": _percent(hour),
            **{f"{network} cost per prediction": _percent(prediction[network]) for network in networks},
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _percent(share: float) -> str:
    return f"{100 * share:+.2f} %"
