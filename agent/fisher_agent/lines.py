"""Points -> InfluxDB line protocol, in the subset that InfluxDB 1.x to 3 and VictoriaMetrics read alike.

They disagree on a backslash in names and tags and on a line break inside a string, so neither is ever written: a
backslash becomes `/`, a control character a space. Measurement and key names are constants of the code.
https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/
"""

import math
from collections.abc import Iterable

from fisher_agent.stages import Point, Scalar

MS = 1_000_000
MAX_TAG = 256  # characters; VictoriaMetrics cuts label values, InfluxDB refuses them over 64 kB
MAX_STRING = 1024
EMPTY_TAG = "none"  # an empty tag value is a syntax error, and every tag is always written
INT64 = 2**63

_PLAIN = dict.fromkeys((*range(32), 127, 0x85, 0x2028, 0x2029), " ")
_NAME = str.maketrans({**_PLAIN, ord("\\"): "/"})
_ESCAPED = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ "})
_ESCAPED_MEASUREMENT = str.maketrans({",": "\\,", " ": "\\ "})
_ESCAPED_STRING = str.maketrans({**_PLAIN, ord("\\"): "\\\\", ord('"'): '\\"'})


def lines(points: Iterable[Point]) -> list[str]:
    """Every point that has a field left, in order."""
    return [text for text in map(line, points) if text is not None]


def line(point: Point) -> str | None:
    """One line without its line break, time in ms; None where no field can be written.

    NaN, infinities and integers beyond 64 bits have no form in the protocol: such a field is left out.
    """
    fields = [f"{_key(name)}={text}" for name, value in point.fields if (text := _value(value)) is not None]
    if not fields:
        return None
    head = point.measurement.translate(_NAME).translate(_ESCAPED_MEASUREMENT)
    tags = "".join(f",{_key(name)}={_key(value) or EMPTY_TAG}" for name, value in point.tags)
    return f"{head}{tags} {','.join(fields)} {point.t_ns // MS}"


def _key(text: str) -> str:
    return text[:MAX_TAG].translate(_NAME).translate(_ESCAPED)


def _value(value: Scalar) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i" if -INT64 <= value < INT64 else None
    if isinstance(value, float):
        return repr(float(value)) if math.isfinite(value) else None
    return f'"{value[:MAX_STRING].translate(_ESCAPED_STRING)}"'
