"""One entry module a stage."""
