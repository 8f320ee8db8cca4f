"""Judge single lines of a manifest, exactly; flows.reading has the fast way to the same answers.

Functions take bytes and return outcomes; they know neither Prefect, the database nor a store. Imports
`domain`.
"""
