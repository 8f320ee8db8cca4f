"""Results become objects in a customer's bucket: `delivery` has the steps, `folder` what is in it.

Names and contents follow from the database alone, so that twins write the same.
"""
