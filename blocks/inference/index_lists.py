"""Lists of places in a column, by which its values are summed: the one operation of the inference."""

import polars as pl
import pyarrow as pa


class IndexLists:
    """Lists of places in a column, of any length.

    They are made of `places`, 0-based, of which each list takes as many as `sizes` says.
    """

    def __init__(self, places: pl.Series, sizes: pl.Series) -> None:
        self._places = places
        ends = sizes.cast(pl.Int64).cum_sum()
        self._starts = pl.concat([pl.Series([0], dtype=pl.Int64), ends.alias("")]).to_arrow()

    def sum(self, column: pl.Series) -> pl.Series:
        """Return, for each list, the sum of the values of `column` at its places.

        The order of the terms, and so the sum to its last bit, is that of the places. `group_by` would
        take ten times as long, and add in any order.
        """
        values = column[self._places].to_arrow()
        lists = pa.LargeListArray.from_arrays(self._starts, values)
        return pl.Series(pl.from_arrow(lists)).list.sum()
