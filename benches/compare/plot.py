"""Line charts and bar charts as SVG, without a library: axes with ticks, several series, legends."""

import math
from html import escape

# Okabe and Ito's colours, which people with any kind of colour vision tell apart.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 70, 150, 44, 56


def _ticks(low: float, high: float, is_log: bool) -> list[float]:
    if is_log:
        powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
        # Where few powers of ten are in sight, steps between them, too.
        factors = (1, 2, 5) if high / low < 1_000 else (1,)
        return [tick for power in powers for tick in (power * factor for factor in factors) if low <= tick <= high]
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    return [tick * step for tick in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def _label(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


class Axis:
    """Where values of one axis come to lie."""

    def __init__(self, values: list[float], is_log: bool, begin: int, end: int, names: dict | None = None):
        values = [value for value in values if value > 0] if is_log else values
        low, high = (min(values), max(values)) if is_log else (min(0, *values), max(values))
        if is_log:
            low, high = low / 1.2, high * 1.2
        self.is_log, self.low, self.high, self.begin, self.end = is_log, low, high if high > low else low + 1, begin, end
        self.ticks = list(names) if names else _ticks(self.low, self.high, is_log)
        self.names = names or {tick: _label(tick) for tick in self.ticks}

    def at(self, value: float) -> float:
        scale = math.log10 if self.is_log else float
        value = max(value, self.low)
        share = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return self.begin + share * (self.end - self.begin)


def chart(title: str, x_name: str, y_name: str, series: dict[str, list[tuple[float, float]]], log_x=False, log_y=False, x_names=None) -> str:
    """An SVG document; `series` by name, each of (x, y) ascending by x; `x_names`: ticks to show instead of round numbers."""
    points = [point for line in series.values() for point in line]
    x = Axis([point[0] for point in points], log_x, LEFT, WIDTH - RIGHT, x_names)
    y = Axis([point[1] for point in points], log_y, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13" fill="#222">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="16" font-weight="bold">{escape(title)}</text>',
    ]
    for tick in y.ticks:
        at = y.at(tick)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{escape(y.names[tick])}</text>')
    for tick in x.ticks:
        at = x.at(tick)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 5}" stroke="#888"/>')
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{escape(str(x.names[tick]))}</text>')
    parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM}" stroke="#888"/>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">{escape(x_name)}</text>')
    parts.append(f'<text x="18" y="{middle}" text-anchor="middle" transform="rotate(-90 18 {middle})">{escape(y_name)}</text>')
    for index, (name, line) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        stroke = f'stroke="{colour}"' + (' stroke-dasharray="6 4"' if index >= len(COLOURS) else "")
        path = " ".join(f"{x.at(one):.1f},{y.at(other):.1f}" for one, other in line)
        parts.append(f'<polyline points="{path}" fill="none" {stroke} stroke-width="2"/>')
        if len(line) <= 20:
            parts += [f'<circle cx="{x.at(one):.1f}" cy="{y.at(other):.1f}" r="3" fill="{colour}"/>' for one, other in line]
        at = TOP + 8 + 20 * index
        parts.append(f'<line x1="{WIDTH - RIGHT + 12}" x2="{WIDTH - RIGHT + 34}" y1="{at}" y2="{at}" {stroke} stroke-width="3"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 40}" y="{at + 4}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


BAR, BAR_GAP, GROUP_GAP, NAME_WIDTH = 20, 4, 22, 150


def bars(title: str, unit: str, groups: dict[str, dict[str, tuple[float, float, float]]]) -> str:
    """An SVG document with groups of horizontal bars; a bar is a name and its (value, lowest,
    highest). Each group has a scale of its own, so that the bars of a small one can be told apart.
    The first bar of each stands out."""
    height = 52 + sum(GROUP_GAP + 24 + (BAR + BAR_GAP) * len(group) for group in groups.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="13" fill="#222">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="20" y="28" font-size="16" font-weight="bold">{escape(title)}</text>',
    ]
    top = 44
    for name, group in groups.items():
        top += GROUP_GAP
        parts.append(f'<text x="20" y="{top + 6}" font-weight="bold">{escape(name)}</text>')
        top += 16
        scale = (WIDTH - NAME_WIDTH - 150) / max(highest for _, _, highest in group.values())
        for index, (bar, (value, lowest, highest)) in enumerate(group.items()):
            middle = top + BAR / 2
            colour = COLOURS[0] if index == 0 else "#b8c4ce"
            ends = [NAME_WIDTH + each * scale for each in (value, lowest, highest)]
            at, base = f'y1="{middle:.1f}" y2="{middle:.1f}"', f'y="{middle + 4:.1f}"'
            parts += [
                f'<text x="{NAME_WIDTH - 8}" {base} text-anchor="end">{escape(bar)}</text>',
                f'<rect x="{NAME_WIDTH}" y="{top}" width="{ends[0] - NAME_WIDTH:.1f}" '
                f'height="{BAR}" rx="2" fill="{colour}"/>',
                f'<line x1="{ends[1]:.1f}" x2="{ends[2]:.1f}" {at} stroke="#222" stroke-width="1.5"/>',
                f'<text x="{max(ends) + 8:.1f}" {base}>{value:.2f} {escape(unit)}</text>',
            ]
            top += BAR + BAR_GAP
    return "\n".join([*parts, "</svg>"]) + "\n"
