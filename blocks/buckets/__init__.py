"""Object stores: S3 and GCS behind one protocol, with a customer's credentials and nobody else's.

Every failure leaves as `Transient` or `Terminal`, with a sentence for the customer; every answer of a
store is bounded in bytes and seconds. Imports `domain` and `secrets`.
"""
