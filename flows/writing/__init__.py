"""Write results into a customer's bucket: `delivery` has the steps, `folder` the objects.

Names and contents follow from the database alone, so two runs of one delivery write the same bytes.
"""
