-- Make a role and a database for each program. The image of PostgreSQL runs this once, when its data folder is empty.

\set refinery `cat /run/secrets/refinery-database-password`
\set prefect `cat /run/secrets/prefect-database-password`

create role refinery login password :'refinery';
create database refinery owner refinery;
revoke connect on database refinery from public;

create role prefect login password :'prefect';
create database prefect owner prefect;
revoke connect on database prefect from public;
