"""What a prediction costs, measured here and published there; and published tables computed anew from raw figures.

Used one request at a time, as the retinopathy study did, a machine costs its hourly price for as long as a prediction
takes; kept busy, it costs the hourly price divided by all that it predicts in an hour. Neither is the hourly price: the
cheaper hour can be the dearer prediction.
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
HERE = "measured"
WHAT_IF = "what-if"


@dataclass(frozen=True)
class Measured:
    """One network in one engine on this machine.

    Attributes:
        network: Its name, with the image size where that matters.
        engine: What ran it, one image at a time.
        milliseconds: Mean time of one image at a time.
        images_per_second: Throughput when the machine is kept busy, by whichever engine does that best.
    """

    network: str
    engine: str
    milliseconds: float
    images_per_second: float

    @classmethod
    def best(cls, table: pd.DataFrame, network: str) -> Measured:
        """The best that a table of `inference` has, of what is not refused.

        Args:
            table: Columns engine, precision, mode, threads, batch, images_per_second and refused.
            network: Its name, with the image size where that matters.
        """
        admitted = table[table["refused"] == ""]
        # one caller waits for each answer, so that the mean time is the inverse of the rate
        alone = admitted[(admitted["batch"] == 1) & (admitted["mode"] == "latency")]
        quickest = alone.loc[alone["images_per_second"].idxmax()]
        threads = f"{quickest['threads']} thread{'' if quickest['threads'] == 1 else 's'}"
        engine = f"{quickest['engine']} {quickest['precision']}, {threads}"
        rate = quickest["images_per_second"]
        return cls(network, engine, 1000 / float(rate), float(admitted["images_per_second"].max()))


def per_million(usd_per_hour: ArrayLike, seconds: ArrayLike) -> Any:
    """USD per million predictions, one at a time: USD/h ÷ 3600 × seconds × 10⁶.

    Args:
        usd_per_hour: Price of the machine.
        seconds: Mean time of a prediction; with the mean, as with no quantile, the sum over many is right.
    """
    return np.asarray(usd_per_hour, dtype=np.float64) / 3600 * np.asarray(seconds, dtype=np.float64) * 1e6


def per_million_busy(usd_per_hour: ArrayLike, per_second: ArrayLike) -> Any:
    """USD per million predictions of a machine kept busy: USD/h ÷ (predictions a second × 3600) × 10⁶.

    Args:
        usd_per_hour: Price of the machine.
        per_second: Its throughput.
    """
    return per_million(usd_per_hour, 1 / np.asarray(per_second, dtype=np.float64))


def published(tables: Mapping[str, Published]) -> pd.DataFrame:
    """The published measurements whose costs can be recomputed: those of a study's tables that say `recompute: cost`.

    Returns:
        One row an instance and network: `where` (the instance), `network`, `usd_per_hour`, `milliseconds`,
        `usd_per_million` (computed) and `kind`; empty where no table has any.
    """
    rows = []
    for table in tables.values():
        for instance, values in table.rows.items() if table.recompute == "cost" else ():
            for column, value in values.items():
                network, is_time = column.removesuffix(" ms"), column.endswith(" ms")
                if is_time and value is not None:
                    rows.append((instance, network, float(values["USD an hour"] or 0), float(value)))
    found = pd.DataFrame(rows, columns=["where", "network", "usd_per_hour", "milliseconds"])
    found["usd_per_million"] = per_million(found["usd_per_hour"], found["milliseconds"] / 1000)
    return found.assign(kind=PUBLISHED)


def side_by_side(
    measured: Sequence[Measured], prices: Mapping[str, Price], price: float | None, there: pd.DataFrame | None = None
) -> pd.DataFrame:
    """What a prediction costs on this machine, beside what it cost where it was published.

    Args:
        measured: This machine's figures.
        prices: The price table. Where `price` is None this machine has no price, and is shown at each of these: what a
            prediction would cost if this machine cost that. It does not say how fast that instance is. Those of
            several GPUs are left out.
        price: What an hour of this machine costs, in USD.
        there: `published`'s rows; None for none.

    Returns:
        One row a place and network: `where`, `network`, `engine`, `usd_per_hour`, `milliseconds` (mean, one at a time),
        `usd_per_million` at that, `images_per_second` and `usd_per_million_busy` (NaN where not measured), and `kind`:
        "published", "measured" or "what-if".
    """
    if price is None:
        # several GPUs are rented to train, not for one prediction at a time
        listed = {name: each.usd_per_hour for name, each in prices.items() if each.gpus < 2}
        places = [(f"this machine, if it cost what {name} costs", usd) for name, usd in listed.items()]
    else:
        places = [("this machine", price)]
    columns = ["where", "network", "engine", "usd_per_hour", "milliseconds", "images_per_second"]
    here = pd.DataFrame(
        [
            (where, each.network, each.engine, usd, each.milliseconds, each.images_per_second)
            for each in measured
            for where, usd in places
        ],
        columns=columns,
    ).assign(kind=HERE if price is not None else WHAT_IF)
    rows = [each for each in (there, here) if each is not None and len(each)]
    found = pd.concat(rows, ignore_index=True) if rows else here
    found["usd_per_million"] = per_million(found["usd_per_hour"], found["milliseconds"] / 1000)
    found["usd_per_million_busy"] = per_million_busy(found["usd_per_hour"], found.get("images_per_second", np.nan))
    return found.reindex(columns=[*columns[:5], "usd_per_million", columns[5], "usd_per_million_busy", "kind"])


def break_even(measured: Sequence[Measured], there: pd.DataFrame) -> pd.DataFrame:
    """The hourly price at which a prediction here costs what one cost there: below it this machine is the cheaper one.

    Where the networks differ, the figures compare predictions, not machines.

    Args:
        measured: This machine's figures.
        there: `published`'s rows.

    Returns:
        One row a published figure and a measured one: `where` and `network` (published), `usd_per_million` there,
        `network_here`, `engine`, and the prices in USD an hour `break_even`, one image at a time, and
        `break_even_busy`, this machine kept busy.
    """
    rows = [
        {
            **row[["where", "network", "usd_per_million"]].to_dict(),
            "network_here": each.network,
            "engine": each.engine,
            "break_even": row["usd_per_million"] / float(per_million(1.0, each.milliseconds / 1000)),
            "break_even_busy": row["usd_per_million"] / float(per_million_busy(1.0, each.images_per_second)),
        }
        for _, row in there.iterrows()
        for each in measured
    ]
    columns = ["where", "network", "usd_per_million", "network_here", "engine", "break_even", "break_even_busy"]
    return pd.DataFrame(rows, columns=columns)


def cheaper_hours(there: pd.DataFrame) -> pd.DataFrame:
    """For each pair of instances, how much cheaper the hour of one is and how the cost of a prediction changes.

    Args:
        there: `published`'s rows.

    Returns:
        One row a pair and network: `of` and `instead`, the dearer and the cheaper hour; `network`; `hour` and
        `prediction`, changes as shares (−0.24: 24 % less). Pairs whose cheaper hour is some network's dearer prediction
        come first, the greatest saving of an hour on top.
    """
    rows = []
    for network, each in there.groupby("network", sort=False):
        for _, old in each.iterrows():
            for _, new in each[each["usd_per_hour"] < old["usd_per_hour"]].iterrows():
                hour = new["usd_per_hour"] / old["usd_per_hour"] - 1
                prediction = new["usd_per_million"] / old["usd_per_million"] - 1
                rows.append((old["where"], new["where"], network, hour, prediction))
    found = pd.DataFrame(rows, columns=["of", "instead", "network", "hour", "prediction"])
    dearer = found.groupby(["of", "instead"])["prediction"].transform("max") > 0
    order = found.assign(fair=~dearer).sort_values(["fair", "hour"], kind="stable").index
    return found.loc[order].reset_index(drop=True)


def telling_pair(there: pd.DataFrame) -> tuple[str, str] | None:
    """The dearer and the cheaper hour of the pair on top of `cheaper_hours` whose cheaper hour is a dearer prediction.

    Args:
        there: `published`'s rows.

    Returns:
        Their names; None where each cheaper hour is the cheaper prediction.
    """
    pairs = cheaper_hours(there)
    dearer = pairs[pairs["prediction"] > 0]
    return None if dearer.empty else (str(dearer["of"].iloc[0]), str(dearer["instead"].iloc[0]))


def finding(there: pd.DataFrame) -> str:
    """What `telling_pair` tells, in a sentence; "" where there is no such pair."""
    pair = telling_pair(there)
    if pair is None:
        return ""
    pairs = cheaper_hours(there)
    rows = pairs[(pairs["of"] == pair[0]) & (pairs["instead"] == pair[1])]
    shares = dict(zip(rows["network"], 100 * rows["prediction"], strict=True))
    changes = ", ".join(
        f"a prediction of {network} {abs(share):.1f} % {'more' if share > 0 else 'less'}"
        for network, share in shares.items()
    )
    saved = -100 * rows["hour"].iloc[0]
    return f"An hour of {pair[1]} costs {saved:.1f} % less than one of {pair[0]}; {changes}."


def price_table(prices: Mapping[str, Price]) -> pd.DataFrame:
    """The price table with its sources: one row an instance, a column a key of `Price`."""
    rows = [each.model_dump() for each in prices.values()]
    return pd.DataFrame(rows, index=list(prices), columns=list(Price.model_fields)).rename_axis("instance")


def recomputed(name: str, tables: Mapping[str, Published]) -> pd.DataFrame:
    """A published table with what follows from its raw figures beside what was printed.

    Args:
        name: The table's; its `recompute` is one of the ways that `Published` names.
        tables: All tables of the study.

    Returns:
        The table: a column that is recomputed becomes two, "… (published)" and "… (recomputed)".

    Raises:
        StudyError: A comparison names a table or an instance that is not there.
    """
    table = tables[name]
    printed = pd.DataFrame(list(table.rows.values()), index=list(table.rows), dtype=object)
    if table.recompute == "cost":
        found = _costs(printed)
    elif table.recompute == "comparison":
        found = _comparisons(name, tables, printed)
    else:
        found = _speedups(printed, table.of if table.recompute == "scaled_speedup" else "")
    columns = {}
    for column in printed:
        columns |= {f"{column} (published)": printed[column]} if column in found else {column: printed[column]}
        columns |= {f"{column} (recomputed)": found[column]} if column in found else {}
    columns |= {f"{column} (recomputed)": found[column] for column in found if column not in printed}
    return pd.DataFrame(columns, index=printed.index, dtype=object)


def _speedups(printed: pd.DataFrame, work: str) -> pd.DataFrame:
    seconds = printed["seconds"].astype(float).tolist()
    workers = printed.get("workers", pd.Series(np.nan, printed.index)).astype(float).tolist()
    plain = scaling.table(seconds, workers)
    found = {"speed-up": plain["speedup"], "efficiency": plain["efficiency"]}
    if work:
        scaled = scaling.table(seconds, workers, printed[work].astype(float).tolist())
        found |= {"efficiency": scaled["efficiency"], "scaled speed-up": scaled["speedup"]}
    return pd.DataFrame({column: values.round(3).to_numpy() for column, values in found.items()}, index=printed.index)


def _costs(printed: pd.DataFrame) -> pd.DataFrame:
    price = printed["USD an hour"].astype(float)
    times = {column.removesuffix(" ms"): printed[column].astype(float) for column in printed if column.endswith(" ms")}
    costs = {f"{network} USD per million": per_million(price, time / 1000) for network, time in times.items()}
    return pd.DataFrame(costs, index=printed.index).round(2)


def _comparisons(name: str, tables: Mapping[str, Published], printed: pd.DataFrame) -> pd.DataFrame:
    """Speed-ups of `first` over `second` by network, and by how much its hour and its prediction cost more."""
    of = tables[name].of
    if of not in tables or tables[of].recompute != "cost":
        raise StudyError(f"published.{name}.of is {of!r}; expected a published table with recompute: cost")
    measured = published({of: tables[of]}).set_index(["where", "network"])
    networks = list(dict.fromkeys(measured.index.get_level_values("network")))
    rows = {}
    for row, values in printed.iterrows():
        pair = []
        for column in ("first", "second"):
            instance = values[column]
            if instance not in tables[of].rows:
                known = ", ".join(tables[of].rows)
                raise StudyError(f"published.{name}: {column} of {row!r} is {instance!r}; expected one of {known}")
            pair.append(measured.loc[instance])
        new, old = pair
        faster = old["milliseconds"] / new["milliseconds"]
        hour = new["usd_per_hour"].iloc[0] / old["usd_per_hour"].iloc[0] - 1
        prediction = new["usd_per_million"] / old["usd_per_million"] - 1
        # as the study prints it: a factor, or a change in percent
        as_change = {each: str(values.get(each, "")).endswith("%") for each in networks}
        rows[row] = {
            **{each: _percent(faster[each] - 1) if as_change[each] else round(faster[each], 3) for each in networks},
            "hourly cost": _percent(hour),
            **{f"{each} cost per prediction": _percent(prediction[each]) for each in networks},
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _percent(share: float) -> str:
    return f"{100 * share:+.2f} %"
