-- record --
insert into instructions (digest, text) values (%(digest)s, %(text)s) on conflict do nothing;

-- hold --
-- Keep a text until the commit; no row comes back where housekeeping has just deleted it.
select digest from instructions where digest = %(digest)s for key share;

-- read --
select text from instructions where digest = %(digest)s;
