-- add_link --
insert into sign_in_links (link_hash, key_hash, expires_at)
select %(link_hash)s, key_hash, now() + make_interval(secs => %(link_s)s)
from api_keys where key_id = %(key_id)s and revoked_at is null
returning key_hash;

-- end_oldest_links --
-- Delete the unused links of a key beside the newest one that are too many; another request may be doing that.
delete from sign_in_links where link_hash = any (array(
    select link_hash from sign_in_links where key_hash = %(key_hash)s and link_hash <> %(link_hash)s
    order by expires_at desc offset %(others_max)s
    for update skip locked
));

-- find_key --
-- Find a good key by its id, or the newest one of each owner of a name or an id.
select distinct on (k.customer_id, k.annotator_no, k.admin_name) k.key_id
from api_keys k left join annotators a using (annotator_no)
where k.revoked_at is null and %(named)s in (k.key_id, k.customer_id, a.annotator_id, a.name, k.admin_name)
order by k.customer_id, k.annotator_no, k.admin_name, k.created_at desc, k.key_id;

-- take_link --
-- Use a link up; return the key that it stands for.
delete from sign_in_links where link_hash = %(link_hash)s
returning key_hash, expires_at > now() as is_good;

-- begin --
-- Sign a browser in with a key that is good.
with key as (
    select k.key_hash, {customers.principal}
    from api_keys k
    where key_hash = %(key_hash)s and revoked_at is null
), session as (
    insert into sessions (session_hash, key_hash, expires_at)
    select %(session_hash)s, key_hash, now() + make_interval(secs => %(session_s)s) from key
    returning expires_at
)
select key.*, session.expires_at from key, session;

-- end_oldest --
-- Sign out the browsers of a key beside the newest one that are too many; another sign-in may be doing that.
delete from sessions where session_hash = any (array(
    select session_hash from sessions where key_hash = %(key_hash)s and session_hash <> %(session_hash)s
    order by expires_at desc offset %(others_max)s
    for update skip locked
));

-- find --
-- Return whose a session is.
select k.key_hash, {customers.principal}
from sessions s join api_keys k using (key_hash)
where s.session_hash = %(session_hash)s and s.expires_at > now() and k.revoked_at is null;

-- end --
delete from sessions where session_hash = %(session_hash)s;

-- end_expired --
-- Delete some of the sessions and links that are over.
with session as (
    delete from sessions where session_hash = any (array(
        select session_hash from sessions where expires_at < now() order by expires_at limit %(limit)s
    ))
    returning 1
), link as (
    delete from sign_in_links where link_hash = any (array(
        select link_hash from sign_in_links where expires_at < now() order by expires_at limit %(limit)s
    ))
    returning 1
)
select (select count(*) from session) + (select count(*) from link) as ended;

-- describe --
-- Return what a page says of who is signed in.
select coalesce(a.name, c.name, k.admin_name) as name, coalesce(a.annotator_id, c.customer_id, k.key_id) as owner_id
from (
    select %(customer_id)s::text as customer_id, %(annotator_no)s::integer as annotator_no,
           %(admin_key_id)s::text as key_id
) p
left join customers c on c.customer_id = p.customer_id
left join annotators a on a.annotator_no = p.annotator_no
left join api_keys k on k.key_id = p.key_id;
