"""How one line of a manifest is judged, exactly; flows.reading has the fast way to the same answer.

Takes bytes, gives outcomes. Knows neither Prefect, the database nor a store. Imports `domain`.
"""
