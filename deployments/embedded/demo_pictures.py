"""Draw the demo's pictures: cats, dogs and birds as SVG, each a little different from all others."""

import random
from collections.abc import Callable

_FURS = ("#c98a4b", "#7a675d", "#e2c79d", "#4a4a55", "#b0652f", "#9a9aa2")
_FEATHERS = ("#2f7fd1", "#d1483a", "#d9a514", "#3c9a5f", "#7b5fc0", "#3aa6a6")
_DARK = "#2b2421"


def _cat(coat: str) -> str:
    return f"""
  <path d="M45 70q55 5 45-45" fill="none" stroke="{coat}" stroke-width="14" stroke-linecap="round"/>
  <ellipse cx="0" cy="70" rx="52" ry="42" fill="{coat}"/>
  <path d="M-48-15l2-62 42 30zM48-15l-2-62-42 30z" fill="{coat}"/>
  <path d="M-41-32l1-28 20 15zM41-32l-1-28-20 15z" fill="#f0b6b0"/>
  <circle cx="0" cy="0" r="50" fill="{coat}"/>
  <ellipse cx="-19" cy="-8" rx="11" ry="9" fill="#d8e86a"/>
  <ellipse cx="19" cy="-8" rx="11" ry="9" fill="#d8e86a"/>
  <ellipse cx="-19" cy="-8" rx="3" ry="9" fill="{_DARK}"/>
  <ellipse cx="19" cy="-8" rx="3" ry="9" fill="{_DARK}"/>
  <path d="M-7 10h14l-7 8z" fill="#d9716b"/>
  <path d="M0 18q-9 12-18 4M0 18q9 12 18 4" fill="none" stroke="{_DARK}" stroke-width="3"/>
  <path d="M-22 14l-46-8M-22 20l-46 6M22 14l46-8M22 20l46 6" stroke="#fff" stroke-width="2"/>"""


def _dog(coat: str) -> str:
    return f"""
  <path d="M46 66q40-6 46-48" fill="none" stroke="{coat}" stroke-width="16" stroke-linecap="round"/>
  <ellipse cx="0" cy="76" rx="58" ry="42" fill="{coat}"/>
  <rect x="-46" y="-52" width="92" height="88" rx="42" fill="{coat}"/>
  <ellipse cx="-52" cy="-6" rx="17" ry="42" transform="rotate(14 -52 -6)" fill="{_DARK}"/>
  <ellipse cx="52" cy="-6" rx="17" ry="42" transform="rotate(-14 52 -6)" fill="{_DARK}"/>
  <path d="M-10 36q10 50 20 0z" fill="#e8727c"/>
  <ellipse cx="0" cy="22" rx="32" ry="24" fill="#f4e6d4"/>
  <ellipse cx="0" cy="10" rx="14" ry="10" fill="{_DARK}"/>
  <path d="M0 20v12" stroke="{_DARK}" stroke-width="3"/>
  <circle cx="-19" cy="-20" r="8" fill="{_DARK}"/><circle cx="-16" cy="-23" r="3" fill="#fff"/>
  <circle cx="19" cy="-20" r="8" fill="{_DARK}"/><circle cx="22" cy="-23" r="3" fill="#fff"/>"""


def _bird(coat: str) -> str:
    return f"""
  <path d="M-8 62v44M16 62v44" stroke="#d98a1f" stroke-width="5"/>
  <path d="M-22 106h28M2 106h28" stroke="#d98a1f" stroke-width="5" stroke-linecap="round"/>
  <path d="M-48 34l-62-26 22 52z" fill="{coat}"/>
  <ellipse cx="0" cy="30" rx="66" ry="44" fill="{coat}"/>
  <circle cx="48" cy="-22" r="33" fill="{coat}"/>
  <path d="M76-34l40 14-40 12z" fill="#f0a020"/>
  <circle cx="56" cy="-30" r="6" fill="{_DARK}"/><circle cx="58" cy="-32" r="2" fill="#fff"/>
  <path d="M-38 20q44-22 62 10-28 40-62-10z" fill="#fff" fill-opacity=".45"/>"""


_DRAWN: dict[str, tuple[Callable[[str], str], tuple[str, ...]]] = {
    "cat": (_cat, _FURS),
    "dog": (_dog, _FURS),
    "bird": (_bird, _FEATHERS),
}
ANIMALS = tuple(_DRAWN)
"""What the pictures show: one of these each."""


def draw(animal: str, n: int) -> bytes:
    """Return picture `n` of an animal, an SVG of 320 × 240; the same one each time."""
    dice = random.Random(f"{animal} {n}")  # noqa: S311 - not a secret
    drawn, coats = _DRAWN[animal]
    sky, ground = dice.randrange(360), dice.randrange(70, 160)
    x, y = dice.randrange(125, 196), dice.randrange(112, 129)
    size, turn, facing = dice.uniform(0.6, 0.95), dice.uniform(-9, 9), dice.choice((1, -1))
    place = f"translate({x} {y}) rotate({turn:.1f}) scale({facing * size:.3f} {size:.3f})"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="320" height="240" viewBox="0 0 320 240">
<rect width="320" height="240" fill="hsl({sky} 55% 88%)"/>
<rect y="170" width="320" height="70" fill="hsl({ground} 35% 72%)"/>
<g transform="{place}">{drawn(dice.choice(coats))}
</g>
</svg>
""".encode()
