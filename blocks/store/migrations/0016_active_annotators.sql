-- Annotators with a good key, found without a look at those whose keys were all revoked.

alter table annotators add column is_active boolean not null default false;
update annotators a
set is_active = true
where exists (select from api_keys k where k.annotator_no = a.annotator_no and k.revoked_at is null);

create index annotators_of_all on annotators (annotator_no) where is_active and customer_ids is null;
create index annotators_of_some on annotators using gin (customer_ids) where is_active;

create function keep_annotator_active() returns trigger language plpgsql as $$
declare
    whose integer := coalesce(new.annotator_no, old.annotator_no); -- null for a customer's key
begin
    -- Of two that revoke the last two keys at once the second sees, behind this, what the first has done.
    perform from annotators where annotator_no = whose for update;
    update annotators a
    set is_active = exists (
        select from api_keys k where k.annotator_no = a.annotator_no and k.revoked_at is null
    )
    where a.annotator_no = whose;
    return null;
end
$$;

create trigger api_keys_keep_active after insert or delete or update of revoked_at on api_keys
    for each row execute function keep_annotator_active();
