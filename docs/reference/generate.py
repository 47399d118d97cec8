"""Writes the pages of docs/reference/ from the code; run by `make reference`."""

from __future__ import annotations

from pathlib import Path

from extauthz.metric_table import BUCKETS, DEFINITIONS, Definition

HERE = Path(__file__).parent
HEAD = "<!-- Written by `make reference` from the code: change it there. -->\n\n"


def metrics() -> str:
    """Return the page of the metrics."""
    rows = [_row(each) for each in DEFINITIONS]
    buckets = ", ".join(f"{bound * 1e6:g} µs" if bound < 0.001 else f"{bound * 1e3:g} ms" for bound in BUCKETS)
    return (
        f"{HEAD}# Metrics\n\n"
        "What `/metrics` shows on the ops listener, in the text format of Prometheus or as OpenMetrics. Label values come from our\n"
        "own enums and from the configuration, never from a request. With several workers the parent shows one figure for all of\n"
        "them: the last column says which. The counts of a worker that has ended stay.\n\n"
        "| name | type | labels | meaning | of several workers |\n|---|---|---|---|---|\n"
        f"{''.join(rows)}\n"
        f"Buckets of `extauthz_check_duration_seconds`: {buckets}.\n\n"
        "Beside them stand the process and Python metrics of the Prometheus client; with several workers these are the parent's.\n"
    )


def _row(each: Definition) -> str:
    labels = ", ".join(f"`{label}`" for label in each.labels)
    return f"| `{each.name}` | {each.type} | {labels} | {each.text} | {each.across} |\n"


PAGES = {"metrics.md": metrics}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
