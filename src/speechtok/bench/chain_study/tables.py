"""A study of the chain for people: four tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from speechtok.bench.adaptation import percent_text
from speechtok.bench.chain_study.curves import REPLAY
from speechtok.bench.chain_study.results import CHANGE, COST, DEV_CHANGE, FINAL, FORGETTING, REACHED, Row
from speechtok.bench.chain_study.study import SOURCE, TARGET, ChainStudy
from speechtok.bench.recognition import MEASURES as RATES
from speechtok.bench.reconstruction import estimate_text
from speechtok.bench.studies.study import Table

Column = tuple[str, str, str]
"""Kind, measure and domain of a row."""
SPEAKER, READING = "t2s/semantic", "text/gain"


def markdown(rows: Sequence[Row], study: ChainStudy) -> str:
    """The page."""
    tables = [one for one in (finals(rows), changes(rows, study), reached(rows, study), forgotten(rows)) if one.lines]
    about = (
        f"Seeds {', '.join(map(str, study.seeds))}. Test rates are of the split {study.testing.split} (texts in the"
        " plain form), weighted over utterances. Mean over seeds [95 % Student's t interval over seeds] {95 % bootstrap"
        " interval over utterances of the mean over seeds}. Intervals over seeds say what another seed would change,"
        " those over utterances what other test utterances would. None is corrected for the number of comparisons:"
        f" {sum(row['kind'] == CHANGE for row in rows)} test changes are shown."
    )
    return "\n".join([about, "", *(table.markdown() for table in tables)])


def finals(rows: Sequence[Row]) -> Table:
    """Test rates, the speaker's loss, and what training cost."""
    columns = [(FINAL, rate, domain) for domain in (TARGET, SOURCE) for rate in RATES]
    columns += [(FINAL, prefix + name, "dev") for prefix in ("", REPLAY) for name in (SPEAKER, READING)]
    columns += [(COST, "epochs", ""), (COST, "steps", "")]
    title = f"What is exported in the end. `{READING}`: nats per token by which the speaker needs the right text."
    return table(rows, title, columns, lambda row: figure(row, 0 if row["kind"] == COST else 3), count=True)


def changes(rows: Sequence[Row], study: ChainStudy) -> Table:
    """Relative to the baseline."""
    columns = [(CHANGE, rate, domain) for domain in (TARGET, SOURCE) for rate in RATES]
    columns += [(DEV_CHANGE, f"cer/{study.judged}", "dev"), (DEV_CHANGE, SPEAKER, "dev")]
    title = (
        f"Relative change against `{study.baseline}` with the same seeds; below 0 is better. Test: models as exported;"
        " variants marked * were trained for another number of epochs. Dev: the last epoch that both have."
    )
    return table(rows, title, columns, percent)


def reached(rows: Sequence[Row], study: ChainStudy) -> Table:
    """When a variant is as good as the baseline becomes."""
    measure = f"cer/{study.judged}"
    columns = [(REACHED, "epoch", measure), (REACHED, "epochs sooner", measure)]
    title = (
        f"First epoch whose dev {measure} is not above that of the last epoch of `{study.baseline}` with the same seed,"
        " and by how many epochs that is sooner. Where it is so in some of the seeds only, their number is said instead"
        " of a mean."
    )
    return table(rows, title, columns, first_epoch, count=True)


def forgotten(rows: Sequence[Row]) -> Table:
    """Changes on the source."""
    columns = [(FORGETTING, f"{kind}{rate}", SOURCE) for rate in RATES for kind in ("", "relative ")]
    title = "Forgetting: change on the source's test from the models that training began with; above 0 is worse."
    return table(rows, title, columns, lambda r: percent(r) if r["measure"] not in RATES else figure(r, 3))


def table(
    rows: Sequence[Row], title: str, columns: Sequence[Column], shown: Callable[[Row], str], count: bool = False
) -> Table:
    """A line per variant, and those columns that have figures."""
    cells = {(row["variant"], row["kind"], row["measure"], row["domain"]): row for row in rows}
    there = [column for column in columns if any(key[1:] == column for key in cells)]
    names = [name for name in dict.fromkeys(row["variant"] for row in rows) if _has(cells, name, there)]
    lines = []
    for name in names:
        found = [cells.get((name, *column)) for column in there]
        marked = any(row.get("equal_epochs") is False for row in found if row)
        seeds = [str(max(len(row["seeds"]) for row in found if row))] if count else []
        lines.append([name + ("*" if marked else ""), *seeds, *(shown(row) if row else "" for row in found)])
    return Table(title, ["variant", *(["seeds"] if count else []), *map(_heading, there)], lines)


def figure(row: Row, digits: int) -> str:
    """``0.123 [0.120, 0.126] {0.100, 0.150}``."""
    drawn = row["over_utterances"]
    within = "" if not drawn or drawn["low"] is None else f" {{{drawn['low']:.{digits}f}, {drawn['high']:.{digits}f}}}"
    return estimate_text(row["over_seeds"], digits) + within


def first_epoch(row: Row) -> str:
    """The mean over seeds, or in how many of them there is one."""
    known = [value for value in row["each"] if value is not None]
    if len(known) == len(row["each"]):
        return figure(row, 1)
    return f"in {len(known)} of {len(row['each'])} seeds" + (f": {', '.join(map(str, known))}" if known else "")


def percent(row: Row) -> str:
    """The same for shares, in per cent."""
    drawn = row["over_utterances"]
    known = drawn and drawn["low"] is not None
    return percent_text(row["over_seeds"]) + (
        f" {{{100 * drawn['low']:+.1f}, {100 * drawn['high']:+.1f}}}" if known else ""
    )


def _has(cells: dict[tuple[str, ...], Row], name: str, columns: Sequence[Column]) -> bool:
    return any((name, *column) in cells for column in columns)


def _heading(column: Column) -> str:
    kind, measure, domain = column
    label = measure.upper() if measure in RATES else measure
    return label if kind in (COST, REACHED) else f"{domain} {label}"
