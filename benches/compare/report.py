"""What was found, as Markdown with verdicts, as JSON, and as plots."""

import json
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


def median(outcomes: list[dict], figure) -> float:
    return statistics.median(figure(outcome) for outcome in outcomes)


class Report:
    """Collects lines, verdicts and figures."""

    def __init__(self, title: str):
        self.lines = [f"# {title}", ""]
        self.figures: dict = {}
        self.verdicts: list[dict] = []

    def add(self, *lines: str) -> None:
        self.lines += lines

    def judge(self, what: str, value: float, most: float, aim: float, least: bool = False) -> None:
        """Notes a figure that is to be at most so much; or at least, if `least`."""
        holds, reached = (value >= most, value >= aim) if least else (value <= most, value <= aim)
        verdict = "aim reached" if reached else "holds" if holds else "**falls short**"
        self.verdicts.append({"what": what, "value": value, "limit": most, "aim": aim, "atLeast": least, "verdict": verdict})

    def plot(self, name: str, *arguments, **options) -> None:
        (OUT / f"{name}.svg").write_text(plot.chart(*arguments, **options))
        self.add(f"![{arguments[0]}]({name}.svg)", "")

    def requests(self, outcomes: dict, calls: dict) -> None:
        self.add("| measure | candidate | CPU us/request | requests/s | p50 us | p99 us | p99.9 us | max us | system calls/request |")
        self.add("|---|---|---|---|---|---|---|---|---|")
        cpu = {key: median(found, lambda one: one["cpuUsPerRequest"]) for key, found in outcomes.items()}
        for (measure, name), found in outcomes.items():
            shown = [median(found, lambda one, key=key: one["latencyUs"][key]) for key in ("p50", "p99", "p999", "max")]
            rate = median(found, lambda one: one["perSecond"])
            traced = f"{calls[measure, name]:.2f}" if (measure, name) in calls else "-"
            latencies = " | ".join(f"{value:.0f}" for value in shown)
            self.add(f"| {measure} | {name} | {cpu[measure, name]:.2f} | {rate:.0f} | {latencies} | {traced} |")
        self.add("")
        for measure, name, beside, most, aim in LIMITS:
            if (measure, beside) in cpu:
                self.judge(f"{measure}, CPU/request: {name} ÷ {beside}", cpu[measure, name] / cpu[measure, beside], most, aim)
        self.figures["requests"] = {f"{measure}: {name}": found for (measure, name), found in outcomes.items()}
        self.figures["systemCalls"] = {f"{measure}: {name}": value for (measure, name), value in calls.items()}
        curves = {name: found for (measure, name), found in outcomes.items() if measure == "get"}
        self.plot(
            "latencies", "Latency of GETs, closed loop, 64 connections", "share of requests that took longer", "us",
            {name: [(100 / (100 - share), us) for share, us in found[len(found) // 2]["latencyUs"]["curve"]] for name, found in curves.items()},
            log_x=True, log_y=True, x_names={2: "1/2", 10: "1/10", 100: "1/100", 1000: "1/1000", 10000: "1/10000"},
        )

    def series(self, name: str, title: str, x_name: str, y_name: str, figures: dict[str, dict[int, float]], log_y: bool = False) -> None:
        """A table and a plot of figures over sizes or counts."""
        columns = sorted({at for line in figures.values() for at in line})
        self.add(f"## {title}", "", f"| {y_name} | " + " | ".join(f"{at:,}" for at in columns) + " |", "|---" * (len(columns) + 1) + "|")
        for line, values in figures.items():
            self.add(f"| {line} | " + " | ".join(f"{values[at]:.2f}" if values[at] < 100 else f"{values[at]:.0f}" for at in columns) + " |")
        self.add("")
        self.figures[name] = figures
        points = {line: sorted(values.items()) for line, values in figures.items()}
        self.plot(name, title, x_name, y_name, points, log_x=True, log_y=log_y)

    def disturbed(self, found: dict) -> None:
        shown = {name: {key: median(runs, lambda one, key=key: one["latencyUs"][key]) for key in ("p50", "p99", "p999", "max")} for name, runs in found["runs"].items()}
        late = {name: median(runs, lambda one: one["latenessUs"]["p999"]) for name, runs in found["runs"].items()}
        self.add(f"## GETs at half load, {found['rate']}/s in the open loop", "", "| | p50 us | p99 us | p99.9 us | max us | generator late, p99.9 us |", "|---|---|---|---|---|---|")
        for name, values in shown.items():
            self.add(f"| {name} | " + " | ".join(f"{value:.0f}" for value in values.values()) + f" | {late[name]:.0f} |")
        self.add("", f"A replica joined {found['joined']} times.", "")
        for name, most, aim in (("merging", 1.5, 1.2), ("a replica joins", 1.5, 1.2)):
            if name in shown:
                self.judge(f"open-loop GET p99.9 at half load: {name} ÷ undisturbed", shown[name]["p999"] / shown["undisturbed"]["p999"], most, aim)
        self.figures["disturbed"] = found
        points = {name: [(index * runs[0]["sliceMs"] / 1000, one["p99"]) for index, one in enumerate(runs[0]["series"])] for name, runs in found["runs"].items()}
        self.plot("disturbed", "p99 of GETs over time, each 100 ms, first round", "seconds", "us", points, log_y=True)

    def write(self) -> None:
        self.add("## What is promised", "", "| figure | measured | limit | aim | |", "|---|---|---|---|---|")
        for one in self.verdicts:
            sign = "≥" if one["atLeast"] else "≤"
            self.add(f"| {one['what']} | {one['value']:.2f} | {sign} {one['limit']:.2f} | {sign} {one['aim']:.2f} | {one['verdict']} |")
        text = "\n".join(self.lines) + "\n"
        (OUT / "report.md").write_text(text)
        (OUT / "report.json").write_text(json.dumps({"promised": self.verdicts, **self.figures}, indent=1))
        print(text)
        print("written to", OUT, ":", ", ".join(sorted(path.name for path in Path(OUT).glob("*.svg"))), "report.md, report.json")
