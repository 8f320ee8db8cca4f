"""A manifest becomes tasks: ranges, lines, validated batches, chunks in the database.

`ingestion` has the steps; `fast_path` judges what almost every line looks like by Polars, and leaves
the others to `blocks.lines.exact_path`.
"""
