"""Measure curation of the shapes dataset over HTTP: throughput and CPU time. bench_llm.py measures the client alone.

python tests/bench/bench_curation.py --cases 300
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from editr1.config.curate import CurateConfig, PrincipleCounts
from editr1.config.llm import EndpointConfig
from editr1.curation.pipeline import curate
from editr1.data.tables import write_table
from editr1.data.types import EditCase, Quadruple
from editr1.shapes.candidates import make_candidates
from editr1.shapes.cases import generate_cases
from editr1.shapes.labeller_server import labeller_server

SHAPES_COUNTS = PrincipleCounts(total=(6, 6), follow=(1, 2), keep=(3, 4), quality=(1, 1))


def measure_curation(cases: int) -> None:
    """Curate a generated dataset and print the throughput and the CPU time per request."""
    generated = generate_cases(cases, 0, "bench")
    with tempfile.TemporaryDirectory() as folder, labeller_server() as url:
        root = Path(folder)
        write_table(root / "cases.parquet", generated, EditCase)
        rows = (Quadruple(case=case, candidate=item) for case in generated for item in make_candidates(case, 0, 4))
        write_table(root / "candidates.parquet", rows, Quadruple)
        config = CurateConfig(endpoints={"default": EndpointConfig(base_url=url)}, principles=SHAPES_COUNTS)
        start, cpu = time.perf_counter(), time.process_time()
        counts = curate(config, cases=root / "cases.parquet", candidates=root / "candidates.parquet", out=root / "out")
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    served = resource.getrusage(resource.RUSAGE_CHILDREN)
    requests = counts["requests"]
    print(
        f"{counts['quadruples']:.0f} quadruples, {requests:.0f} requests, {wall:.1f} s, {requests / wall:.0f} requests/s"
    )
    print(
        f"client {cpu / requests * 1e3:.2f} ms of CPU per request, server {served.ru_utime + served.ru_stime:.1f} s of CPU in total"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300, help="number of cases to curate (default: %(default)s)")
    arguments = parser.parse_args()
    measure_curation(arguments.cases)
