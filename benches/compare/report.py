"""What was found, as Markdown with verdicts, as JSON, and as plots."""

import json
import math
import statistics
from pathlib import Path

import plot
from servers import OUT

# Measure, candidate, beside whom, at most, aim: of processor time a request. JSON may cost 0.10 more.
_RAW_LIMITS = [
    ("get", "H", 1.20, 1.08),
    ("set", "H", 1.45, 1.20),
    ("get", "redis", 0.90, 0.75),
    ("set", "redis", 0.90, 0.75),
    ("get", "nginx", 0.90, 0.75),
    ("get x16", "redis", 0.75, 0.50),
    ("set x16", "redis", 0.90, 0.60),
]
LIMITS = [(measure, f"node {face}", beside, most + more, aim + more) for face, more in (("raw", 0.0), ("json", 0.1)) for measure, beside, most, aim in _RAW_LIMITS]


class Spread:
    """A figure over rounds: its median, and how far the rounds are apart.

    >>> Spread([4.5, 4.25, 5.0]).text(2), Spread([4.5]).text(2)
    ('4.50 [4.25–5.00]', '4.50')
    """

    def __init__(self, values: list[float]):
        self.median, self.least, self.most = statistics.median(values), min(values), max(values)
        self.count = len(values)

    @staticmethod
    def of(outcomes: list[dict], figure) -> "Spread":
        return Spread([figure(outcome) for outcome in outcomes])

    @staticmethod
    def ratio(values: dict[int, float], others: dict[int, float]) -> "Spread":
        """The ratio of the medians; least and most are those of ratios within a round, by the rounds' numbers. Candidates take turns, so
        what slows the machine down for a while slows both: such a ratio says more than one of the least and the most of different rounds.

        >>> Spread.ratio({0: 1.0, 1: 2.0, 2: 9.0}, {0: 2.0, 1: 4.0}).text(2)
        '0.67 [0.50–0.50]'
        """
        spread = Spread([value / others[at] for at, value in values.items() if at in others] or [math.nan])
        spread.median = statistics.median(values.values()) / statistics.median(others.values())
        return spread

    def range(self, digits: int) -> str:
        """Nothing where there is one round."""
        return f"[{self.least:.{digits}f}–{self.most:.{digits}f}]" if self.count > 1 else ""

    def text(self, digits: int) -> str:
        return f"{self.median:.{digits}f} {self.range(digits)}".rstrip()

    def as_json(self) -> dict:
        return {"median": self.median, "least": self.least, "most": self.most, "rounds": self.count}


def by_round(outcomes: list[dict], figure) -> dict[int, float]:
    return {one["round"]: figure(one) for one in outcomes}


class Report:
    """Collects lines, verdicts and figures."""

    def __init__(self, title: str):
        self.lines = [f"# {title}", ""]
        self.figures: dict = {}
        self.verdicts: list[dict] = []

    def add(self, *lines: str) -> None:
        self.lines += lines

    def judge(self, what: str, figure: float | Spread, most: float, aim: float, least: bool = False) -> None:
        """Notes a figure that is to be at most so much; or at least, if `least`. Of several rounds the median counts."""
        spread = figure if isinstance(figure, Spread) else Spread([figure])
        value = spread.median
        holds, reached = (value >= most, value >= aim) if least else (value <= most, value <= aim)
        verdict = "aim reached" if reached else "holds" if holds else "**falls short**"
        self.verdicts.append({"what": what, "value": value, "rounds": spread, "limit": most, "aim": aim, "atLeast": least, "verdict": verdict})

    def plot(self, name: str, *arguments, **options) -> None:
        (OUT / f"{name}.svg").write_text(plot.chart(*arguments, **options))
        self.add(f"![{arguments[0]}]({name}.svg)", "")

    def requests(self, outcomes: dict, calls: dict) -> None:
        self.add("| measure | candidate | CPU us/request | requests/s | p50 us | p99 us | p99.9 us | max us | system calls/request |")
        self.add("|---|---|---|---|---|---|---|---|---|")
        def cpu(one: dict) -> float:
            return one["cpuUsPerRequest"]

        for (measure, name), found in outcomes.items():
            shown = [Spread.of(found, lambda one, key=key: one["latencyUs"][key]).text(0) for key in ("p50", "p99", "p999", "max")]
            rate = Spread.of(found, lambda one: one["perSecond"]).text(0)
            traced = f"{calls[measure, name]:.2f}" if (measure, name) in calls else "-"
            self.add(f"| {measure} | {name} | {Spread.of(found, cpu).text(2)} | {rate} | {' | '.join(shown)} | {traced} |")
        self.add("")
        for measure, name, beside, most, aim in LIMITS:
            if (measure, beside) in outcomes:
                ratio = Spread.ratio(by_round(outcomes[measure, name], cpu), by_round(outcomes[measure, beside], cpu))
                self.judge(f"{measure}, CPU/request: {name} ÷ {beside}", ratio, most, aim)
        self.figures["requests"] = {f"{measure}: {name}": found for (measure, name), found in outcomes.items()}
        self.figures["systemCalls"] = {f"{measure}: {name}": value for (measure, name), value in calls.items()}
        self.cost(outcomes, cpu)
        curves = {name: found for (measure, name), found in outcomes.items() if measure == "get"}
        self.plot(
            "latencies", "Latency of GETs, closed loop, 64 connections", "share of requests that took longer", "us",
            {name: [(100 / (100 - share), us) for share, us in found[len(found) // 2]["latencyUs"]["curve"]] for name, found in curves.items()},
            log_x=True, log_y=True, x_names={2: "1/2", 10: "1/10", 100: "1/100", 1000: "1/1000", 10000: "1/10000"},
        )

    def cost(self, outcomes: dict, cpu) -> None:
        """A picture of what requests cost: medians, and lines from the least to the most."""
        titles = {
            "get": "GET",
            "set": "SET",
            "get x16": "GET, 16 pipelined",
            "set x16": "SET, 16 pipelined",
        }
        shown = {
            "node raw": "db-node",
            "redis": "Redis",
            "memcached": "memcached",
            "nginx": "nginx, fixed answer",
        }
        groups: dict = {}
        for measure, title in titles.items():
            for name, label in shown.items():
                if (measure, name) in outcomes:
                    values = [cpu(one) for one in outcomes[measure, name]]
                    bar = (statistics.median(values), min(values), max(values))
                    groups.setdefault(title, {})[label] = bar
        title = "Processor time of the server for a request: less is better"
        (OUT / "cost.svg").write_text(plot.bars(title, "µs", groups))
        self.add(f"![{title}](cost.svg)", "")

    def series(self, name: str, title: str, x_name: str, y_name: str, figures: dict[str, dict[int, list[float]]], log_y: bool = False) -> None:
        """A table and a plot of figures of some rounds each, over sizes or counts."""
        spreads = {line: {at: Spread(values) for at, values in by_size.items()} for line, by_size in figures.items()}
        columns = sorted({at for line in spreads.values() for at in line})
        self.add(f"## {title}", "", f"| {y_name} | " + " | ".join(f"{at:,}" for at in columns) + " |", "|---" * (len(columns) + 1) + "|")
        for line, values in spreads.items():
            self.add(f"| {line} | " + " | ".join(values[at].text(2 if values[at].median < 100 else 0) for at in columns) + " |")
        self.add("")
        self.figures[name] = {line: {at: spread.as_json() for at, spread in values.items()} for line, values in spreads.items()}
        points = {line: sorted((at, spread.median) for at, spread in values.items()) for line, values in spreads.items()}
        self.plot(name, title, x_name, y_name, points, log_x=True, log_y=log_y)

    def disturbed(self, found: dict) -> None:
        shown = {name: {key: Spread.of(runs, lambda one, key=key: one["latencyUs"][key]) for key in ("p50", "p99", "p999", "max")} for name, runs in found["runs"].items()}
        late = {name: Spread.of(runs, lambda one: one["latenessUs"]["p999"]) for name, runs in found["runs"].items()}
        self.add(f"## GETs at half load, {found['rate']}/s in the open loop", "", "| | p50 us | p99 us | p99.9 us | max us | generator late, p99.9 us |", "|---|---|---|---|---|---|")
        for name, values in shown.items():
            self.add(f"| {name} | " + " | ".join(value.text(0) for value in values.values()) + f" | {late[name].text(0)} |")
        self.add("", f"A replica joined {found['joined']} times.", "")
        for name, most, aim in (("merging", 1.5, 1.2), ("a replica joins", 1.5, 1.2)):
            if name in shown:
                runs = (by_round(found["runs"][which], lambda one: one["latencyUs"]["p999"]) for which in (name, "undisturbed"))
                ratio = Spread.ratio(*runs)
                self.judge(f"open-loop GET p99.9 at half load: {name} ÷ undisturbed", ratio, most, aim)
        self.figures["disturbed"] = found
        points = {name: [(index * runs[0]["sliceMs"] / 1000, one["p99"]) for index, one in enumerate(runs[0]["series"])] for name, runs in found["runs"].items()}
        self.plot("disturbed", "p99 of GETs over time, each 100 ms, first round", "seconds", "us", points, log_y=True)

    def write(self) -> None:
        self.add("## What is promised", "", "| figure | measured | over rounds | limit | aim | |", "|---|---|---|---|---|---|")
        for one in self.verdicts:
            sign = "≥" if one["atLeast"] else "≤"
            spread = one["rounds"].range(2) or "-"
            self.add(f"| {one['what']} | {one['value']:.2f} | {spread} | {sign} {one['limit']:.2f} | {sign} {one['aim']:.2f} | {one['verdict']} |")
            one["rounds"] = one["rounds"].as_json()
        text = "\n".join(self.lines) + "\n"
        (OUT / "report.md").write_text(text)
        (OUT / "report.json").write_text(json.dumps({"promised": self.verdicts, **self.figures}, indent=1))
        print(text)
        print("written to", OUT, ":", ", ".join(sorted(path.name for path in Path(OUT).glob("*.svg"))), "report.md, report.json")
