-- record --
insert into instructions (digest, text) values (%(digest)s, %(text)s) on conflict do nothing;

-- read --
select text from instructions where digest = %(digest)s;
