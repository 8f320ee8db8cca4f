-- The ledger of a manifest: what was read of it, counted in its raw bytes, beside what its lines came to.

alter table chunks
    add column blank_lines  bigint not null default 0,
    add column read_bytes   bigint not null default 0,   -- of the chunk's range, whatever lines it has
    add column begun_lines  bigint not null default 0;   -- lines that begin there, by their line feeds

-- Bytes of the text of a compressed manifest, once all of it was read.
alter table jobs add column text_bytes bigint;
