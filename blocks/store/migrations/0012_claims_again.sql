-- A claim whose answer was lost can be asked for again by the key that it came with. A key ends with its leases.
alter table leases add column claim_key text, add column claim_digest bytea; -- SHA-256 of what was asked for
