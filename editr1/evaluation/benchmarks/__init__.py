"""The public test sets in their published layouts, each scored as its authors do and by this project's rule.

Nothing is fetched: a set is a local folder (Parquet files as the hub serves them, or the authors' JSON and pictures).
"""

from editr1.evaluation.benchmarks.editscore import EditScoreRow, editscore_table, load_editscore, rate_editscore
from editr1.evaluation.benchmarks.gedit import (
    GEditItem,
    GEditMarks,
    gedit_table,
    judge_gedit,
    load_gedit,
    load_gedit_prompts,
)
from editr1.evaluation.benchmarks.imgedit import ImgEditItem, imgedit_table, judge_imgedit, load_imgedit, load_prompts
from editr1.evaluation.benchmarks.rating import Rate, RatedEdit, rate_with
from editr1.evaluation.benchmarks.rows import BenchmarkError
from editr1.evaluation.benchmarks.run import only, reward_benchmark
from editr1.evaluation.benchmarks.tiger import TigerGroup, load_tiger, rate_tiger, tiger_table

__all__ = [
    "BenchmarkError",
    "EditScoreRow",
    "GEditItem",
    "GEditMarks",
    "ImgEditItem",
    "Rate",
    "RatedEdit",
    "TigerGroup",
    "editscore_table",
    "gedit_table",
    "imgedit_table",
    "judge_gedit",
    "judge_imgedit",
    "load_editscore",
    "load_gedit",
    "load_gedit_prompts",
    "load_imgedit",
    "load_prompts",
    "load_tiger",
    "only",
    "rate_editscore",
    "rate_tiger",
    "rate_with",
    "reward_benchmark",
    "tiger_table",
]
