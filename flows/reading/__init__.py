"""Read a manifest and make its tasks: ranges, lines, validated batches, chunks in the database.

`ingestion` has the steps; `fast_path` judges nearly all lines by Polars, and leaves the others to
`blocks.lines.exact_path`.
"""
