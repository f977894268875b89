"""``python -m tests.faults``: run a campaign, or reproduce single faults."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from tests.faults.campaign import Plan, run_campaign
from tests.faults.catalogue import AREAS, by_id
from tests.faults.s3_server import S3Access
from tests.faults.table import bad, read_results, write
from tests.integration.conftest import serve_s3


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="number of faults that must be met (default: 1000)")
    parser.add_argument("--seed", type=int, default=7, help="seed of the campaign (default: 7)")
    parser.add_argument(
        "--areas", default=",".join(AREAS), help=f"areas, separated by commas (default: {','.join(AREAS)})"
    )
    parser.add_argument("--jobs", type=int, default=2, help="number of worker processes (default: 2)")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for states and results; a campaign there is continued"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="ID", help="inject only this fault; can be repeated"
    )
    options = parser.parse_args()
    only = tuple(by_id(text) for text in options.only)
    areas = tuple(dict.fromkeys(fault.area for fault in only)) if only else tuple(options.areas.split(","))
    out = options.out.resolve()
    (out / "s3").mkdir(parents=True, exist_ok=True)
    (out / "next").unlink(missing_ok=True)
    with serve_s3(out / "s3") if "s3" in areas else nullcontext() as server:
        s3 = S3Access(server.endpoint, server.access_key, server.secret_key) if server else None
        run_campaign(Plan(out, options.count, options.seed, areas, options.jobs, only), s3)
    write(out)
    print((out / "table.md").read_text())
    sys.exit(1 if bad(read_results(out / "results.jsonl")) else 0)


if __name__ == "__main__":
    main()
