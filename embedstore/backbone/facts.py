"""Shipped facts on every pre-trained backbone: found and listed without importing torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    name: str


def table(filter: str = "") -> list[Fact]:
    return []


def resolve(name: str) -> str:
    return name if "/" in name or ":" in name else f"timm/{name}"
