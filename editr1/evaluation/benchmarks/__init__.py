"""Public benchmarks. Each benchmark is scored with its authors' rule and with this project's rule.

Benchmarks are not downloaded automatically. The user provides a local folder for each benchmark. The folder contains
either the Parquet files from the Hugging Face Hub, or the JSON files and images published by the authors.
"""

from editr1.evaluation.benchmarks.edit_scorer import BenchmarkEdit, BenchmarkScorer, EditScorer
from editr1.evaluation.benchmarks.editscore import EditScoreRow, editscore_table, load_editscore, score_editscore
from editr1.evaluation.benchmarks.gedit import (
    GEditItem,
    GEditRatings,
    gedit_table,
    judge_gedit,
    load_gedit,
    load_gedit_prompts,
)
from editr1.evaluation.benchmarks.imgedit import (
    ImgEditItem,
    imgedit_table,
    judge_imgedit,
    load_imgedit,
    load_imgedit_prompts,
)
from editr1.evaluation.benchmarks.rows import BenchmarkError
from editr1.evaluation.benchmarks.run import reward_benchmark, select_protocol
from editr1.evaluation.benchmarks.tiger import TigerGroup, load_tiger, score_tiger, tiger_table

__all__ = [
    "BenchmarkEdit",
    "BenchmarkError",
    "BenchmarkScorer",
    "EditScoreRow",
    "EditScorer",
    "GEditItem",
    "GEditRatings",
    "ImgEditItem",
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
    "load_imgedit_prompts",
    "load_tiger",
    "reward_benchmark",
    "score_editscore",
    "score_tiger",
    "select_protocol",
    "tiger_table",
]
