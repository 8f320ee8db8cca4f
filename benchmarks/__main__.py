"""`make bench`: prints one table. Figures of one run only; machines differ, ratios less so."""

from rich.console import Console

from benchmarks.ingestion import measure

if __name__ == "__main__":
    measure(Console())
