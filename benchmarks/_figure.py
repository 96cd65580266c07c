"""Line charts as SVG text, the same bytes from the same numbers, so that a test can tell whether a committed one is current.

Every line is named at its end and has its own marker or dashes, so that nobody depends on telling colours apart; the colours
are those of Okabe and Ito.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 62, 225, 40, 52  # margins
LABEL_HEIGHT = 16
_STRONG = "#d55e00"
_COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555")
_DASHES = ("", "7 3", "2 3")
_MARKERS = ("circle", "square", "triangle", "diamond")


class Line(NamedTuple):
    """``points``: (x, mean, standard deviation), x ascending and positive. A strong line is thick and has its band drawn."""

    name: str
    points: Sequence[tuple[float, float, float]]
    strong: bool = False


def svg(lines: Sequence[Line], title: str, x_label: str, y_label: str) -> str:
    """Lines over a logarithmic x axis with a tick at every x that occurs; y from the tick below the least mean to the one
    above the largest, eight steps of 1, 2 or 5 times a power of ten between them at most."""
    xs = sorted({x for line in lines for x, *_ in line.points})
    means = [y for line in lines for _, y, _ in line.points]
    least, most = min(means), max(means)
    digits, step = next((-k, m * 10.0 ** k) for k in range(-4, 9) for m in (1, 2, 5) if (most - least) / (m * 10.0 ** k) <= 8)
    ticks = range(math.floor(least / step + 1e-6), max(math.ceil(most / step - 1e-6), math.floor(least / step + 1e-6) + 1) + 1)
    low, high = ticks[0] * step, ticks[-1] * step
    span = math.log(xs[-1] / xs[0]) or 1.0

    def px(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(x / xs[0]) / span

    def py(y: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - min(max(y, low), high)) / (high - low)

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
           f'font-family="sans-serif" font-size="13" role="img"><title>{escape(title)}</title>',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
           f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{escape(title)}</text>']
    for k in ticks:
        y = py(k * step)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>'
                   f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{k * step:.{max(digits, 0)}f}</text>')
    for x in xs:
        out.append(f'<line x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#eeeeee"/>'
                   f'<text x="{px(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:g}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>'
               f'<text x="16" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 16 {middle:.1f})">'
               f'{escape(y_label)}</text>')
    ends = spread([py(line.points[-1][1]) for line in lines], TOP, HEIGHT - BOTTOM)
    for i in sorted(range(len(lines)), key=lambda i: lines[i].strong):  # strong lines on top
        out += _line(lines[i], i, [(px(x), py(y), py(y - s), py(y + s)) for x, y, s in lines[i].points], ends[i])
    return "\n".join([*out, "</svg>", ""])


def spread(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Places for labels ``LABEL_HEIGHT`` apart in the order of ``wanted``: as near to it as can be by least squares, none above
    ``low`` (y grows downwards) and, where there is room for all, none below ``high``."""
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], i))
    groups: list[list[float]] = []  # start, how many: labels that touch
    for i in order:
        groups.append([wanted[i], 1])
        while len(groups) > 1 and groups[-2][0] + groups[-2][1] * LABEL_HEIGHT > groups[-1][0]:
            (y, n), (z, m) = groups[-2:]
            groups[-2:] = [[(n * y + m * (z - n * LABEL_HEIGHT)) / (n + m), n + m]]
    places = [y + k * LABEL_HEIGHT for y, n in groups for k in range(int(n))]
    for k in reversed(range(len(places))):
        places[k] = min(places[k], high - LABEL_HEIGHT * (len(places) - 1 - k))
    for k in range(len(places)):
        places[k] = max(places[k], low + LABEL_HEIGHT * k)
    return [places[order.index(i)] for i in range(len(wanted))]


def _line(line: Line, number: int, points: Sequence[tuple[float, float, float, float]], label_y: float) -> list[str]:
    colour = _STRONG if line.strong else _COLOURS[number % len(_COLOURS)]
    dash = "" if line.strong else _DASHES[number // len(_COLOURS) % len(_DASHES)]
    stroke = f'stroke="{colour}" stroke-width="{3.5 if line.strong else 1.6}"' + (f' stroke-dasharray="{dash}"' if dash else "")
    out = []
    if line.strong:
        band = [(x, top) for x, _, _, top in points] + [(x, bottom) for x, _, bottom, _ in reversed(points)]
        out.append(f'<polygon points="{_join(band)}" fill="{colour}" opacity="0.15"/>')
    out.append(f'<polyline points="{_join([(x, y) for x, y, *_ in points])}" fill="none" {stroke}/>')
    marker = _MARKERS[number % len(_MARKERS)]
    for (x, y, *_), (n, mean, std) in zip(points, line.points, strict=True):
        out.append(_marker(marker, x, y, colour, f"{line.name}, {n:g}: {mean:.3f} ± {std:.3f}"))
    x, y = points[-1][:2]
    start, weight = WIDTH - RIGHT + 18, ' font-weight="bold"' if line.strong else ""
    out.append(f'<path d="M{x + 6:.1f} {y:.1f}L{start} {label_y:.1f}" stroke="{colour}" stroke-width="0.6"/>'
               f'<path d="M{start} {label_y:.1f}h26" {stroke}/>{_marker(marker, start + 13, label_y, colour, line.name)}'
               f'<text x="{start + 32}" y="{label_y + 4:.1f}"{weight}>{escape(line.name)}</text>')
    return out


def _join(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _marker(kind: str, x: float, y: float, colour: str, title: str) -> str:
    r = 4.0
    corners = {"square": ((-r, -r), (r, -r), (r, r), (-r, r)), "triangle": ((0, -r - 1), (r + 1, r), (-r - 1, r)),
               "diamond": ((0, -r - 1), (r + 1, 0), (0, r + 1), (-r - 1, 0))}
    says = f"<title>{escape(title)}</title>"
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:g}" fill="{colour}">{says}</circle>'
    return f'<polygon points="{_join([(x + a, y + b) for a, b in corners[kind]])}" fill="{colour}">{says}</polygon>'
