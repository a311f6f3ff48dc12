-- What a database consists of, a row an object: kind, name, definition, source code in SQL, and the transaction that
-- wrote it; that is read from rows which a later GRANT leaves alone, and null where there are none.
-- Equal definitions do the same, whoever owns the object and in whatever order its columns stand. Not here: what
-- belongs to an extension, what PostgreSQL brings, comments, storage. NOT NULL is a column's, no constraint, as it was
-- before PostgreSQL 18. The search_path has to be empty, so that PostgreSQL writes names in full.
with
brought as ( -- by an extension, or by a type, as a range type brings functions
  select classid, objid from pg_depend where deptype = 'e' or (deptype = 'i' and refclassid = 'pg_type'::regclass)),
schemas as (
  select oid, nspowner, nspacl, xmin as written, quote_ident(nspname) as name from pg_namespace
  where nspname !~ '^pg_' and nspname <> 'information_schema' and (tableoid, oid) not in (table brought)),
classes as (
  select c.*, c.xmin as written, c.oid::regclass::text as name,
    (select string_agg(x, ', ' order by x collate "C") from unnest(reloptions) as x) as options
  from pg_class c join schemas s on s.oid = relnamespace
  where relkind in ('r', 'p', 'v', 'm', 'f', 'S') and (c.tableoid, c.oid) not in (table brought)),
procs as (
  select p.*, p.xmin as written, p.tableoid, p.oid::regprocedure::text as name
  from pg_proc p join schemas s on s.oid = pronamespace
  where (p.tableoid, p.oid) not in (table brought)),
types as (
  select t.*, t.xmin as written, t.tableoid, t.oid::regtype::text as name
  from pg_type t join schemas s on s.oid = typnamespace
  where typtype in ('b', 'c', 'd', 'e', 'r') and (t.tableoid, t.oid) not in (table brought)
    and (typrelid = 0 or exists (select from pg_class where oid = typrelid and relkind = 'c'))),
acls (name, owner, acl, usual, written) as (
  select 'on schema ' || name, nspowner, nspacl, acldefault('n', nspowner), written from schemas
  union all
  select 'on table ' || name, relowner, relacl, acldefault('r', relowner), written from classes where relkind <> 'S'
  union all
  select 'on sequence ' || name, relowner, relacl, acldefault('s', relowner), written from classes where relkind = 'S'
  union all
  select 'on column ' || name || '.' || quote_ident(attname), relowner, attacl, null, a.xmin
  from classes c join pg_attribute a on attrelid = c.oid where not attisdropped
  union all
  select 'on function ' || name, proowner, proacl, acldefault('f', proowner), written from procs
  union all
  select 'on type ' || name, typowner, typacl, acldefault('T', typowner), written from types
  union all
  select 'by default on ' || case defaclobjtype when 'r' then 'tables' when 'S' then 'sequences'
      when 'f' then 'functions' when 'T' then 'types' when 'n' then 'schemas' else 'large objects' end
      || coalesce(' in ' || nullif(defaclnamespace, 0)::regnamespace, ''), defaclrole, defaclacl,
    case defaclnamespace when 0 then acldefault(replace(defaclobjtype::text, 'S', 's')::"char", defaclrole) end, xmin
  from pg_default_acl),
grants (name, owns, granted, usual, written) as (
  select name || ' to ' || coalesce(quote_ident(rolname), 'public'), bool_or(grantee = owner),
    string_agg(distinct what, ', ') filter (where there), string_agg(distinct what, ', ') filter (where not there),
    (array_agg(written))[1]
  from acls
    cross join lateral (select true as there, * from aclexplode(acl) union all select false, * from aclexplode(usual)) e
    cross join lateral (select concat_ws(' ', privilege_type, case when is_grantable then 'with grant option' end)
      collate "C" as what) w
    left join pg_roles r on r.oid = grantee
  where acl is not null group by 1),
rarer (classid, objid, written) as (
  select tableoid, oid, xmin from pg_cast union all select tableoid, oid, xmin from pg_collation union all
  select tableoid, oid, xmin from pg_conversion union all select tableoid, oid, xmin from pg_event_trigger union all
  select tableoid, oid, xmin from pg_foreign_server union all select tableoid, oid, xmin from pg_foreign_data_wrapper
  union all
  select tableoid, oid, xmin from pg_language union all select tableoid, oid, xmin from pg_opclass union all
  select tableoid, oid, xmin from pg_operator union all select tableoid, oid, xmin from pg_opfamily union all
  select tableoid, oid, xmin from pg_publication union all select tableoid, oid, xmin from pg_statistic_ext union all
  select tableoid, oid, xmin from pg_ts_config union all select tableoid, oid, xmin from pg_ts_dict)

select 'schema' as kind, name, '' as definition, null as source, null::xid as written from schemas

union all
select 'extension', quote_ident(extname), 'in ' || extnamespace::regnamespace, null, xmin
from pg_extension where extname <> 'plpgsql'

union all
select 'role', quote_ident(rolname), concat_ws(' ', case when rolcanlogin then 'login' else 'nologin' end,
    case when rolsuper then 'superuser' end, case when rolcreatedb then 'createdb' end,
    case when rolcreaterole then 'createrole' end, case when rolreplication then 'replication' end,
    case when rolbypassrls then 'bypassrls' end, case when not rolinherit then 'noinherit' end,
    case when rolconnlimit >= 0 then 'connection limit ' || rolconnlimit end,
    'set ' || (select string_agg(x, ', ' order by x collate "C") from unnest(rolconfig) as x)), null, null
from pg_roles where oid >= 16384

union all
-- Since PostgreSQL 16 a membership itself says what is inherited; usually the same as its member's role says.
select 'membership', quote_ident(g.rolname) || ' to ' || quote_ident(m.rolname), concat_ws(' ',
    case when bool_or(admin_option) then 'with admin option' end,
    'with inherit ' || nullif(bool_or((to_jsonb(a) ->> 'inherit_option')::boolean), m.rolinherit)::text,
    case when not bool_or((to_jsonb(a) ->> 'set_option')::boolean) then 'without set' end), null, (array_agg(a.xmin))[1]
from pg_auth_members a join pg_roles g on g.oid = roleid join pg_roles m on m.oid = member
where member >= 16384 group by g.rolname, m.rolname, m.rolinherit

union all
select 'type', name, case typtype
    when 'e' then 'enum ' || (select string_agg(quote_literal(enumlabel), ', ' order by enumsortorder)
      from pg_enum where enumtypid = t.oid)
    when 'd' then concat_ws(' ', 'domain', format_type(typbasetype, typtypmod), 'default ' || typdefault,
      case when typnotnull then 'not null' end, (select string_agg(pg_get_constraintdef(oid), ' ' order by conname)
        from pg_constraint where contypid = t.oid and contype = 'c'))
    when 'c' then 'of ' || (select string_agg(quote_ident(attname) || ' ' || format_type(atttypid, atttypmod), ', '
      order by attnum) from pg_attribute where attrelid = typrelid and attnum > 0 and not attisdropped)
    when 'r' then 'range of ' || (select concat_ws(' ', rngsubtype::regtype, nullif(rngcollation, 0)::regcollation,
      nullif(rngsubdiff::text, '-'), nullif(rngcanonical::text, '-')) from pg_range where rngtypid = t.oid)
    else 'base type' end, null,
  (select xmin from pg_depend where classid = t.tableoid and objid = t.oid and refclassid = 'pg_namespace'::regclass)
from types t

union all
select case relkind when 'f' then 'foreign' else 'table' end, name, concat_ws(' ',
    case relpersistence when 'u' then 'unlogged' end, 'partition by ' || pg_get_partkeydef(c.oid),
    'of ' || (select string_agg(inhparent::regclass::text, ', ' order by inhseqno)
      from pg_inherits where inhrelid = c.oid), pg_get_expr(relpartbound, c.oid),
    (select concat_ws(' ', 'server', quote_ident(srvname), ftoptions::text)
      from pg_foreign_table join pg_foreign_server s on s.oid = ftserver where ftrelid = c.oid),
    case when relrowsecurity then 'row level security' end, case when relforcerowsecurity then 'forced' end,
    'replica identity ' || nullif(relreplident, 'd')::text, 'with ' || options), null,
  (select xmin from pg_attribute where attrelid = c.oid and attname = 'tableoid')
from classes c where relkind in ('r', 'p', 'f')

union all
select case relkind when 'v' then 'view' else 'matview' end, name,
  concat_ws(' ', pg_get_viewdef(c.oid), 'with ' || options), null,
  (select xmin from pg_rewrite where ev_class = c.oid and rulename = '_RETURN')
from classes c where relkind in ('v', 'm')

union all
select 'sequence', name, concat_ws(' ', seqtypid::regtype, 'from', seqstart, 'by', seqincrement,
    'within', seqmin, seqmax, case when seqcycle then 'cycle' end,
    'owned by ' || (select refobjid::regclass || '.' || quote_ident(attname)
      from pg_depend join pg_attribute on attrelid = refobjid and attnum = refobjsubid
      where classid = 'pg_class'::regclass and objid = c.oid and deptype in ('a', 'i'))), null, q.xmin
from classes c join pg_sequence q on seqrelid = c.oid

union all
select 'column', name || '.' || quote_ident(attname), concat_ws(' ', format_type(atttypid, atttypmod),
    'collate ' || (select nullif(attcollation, typcollation)::regcollation from pg_type t where t.oid = atttypid),
    case when attnotnull then 'not null' end,
    case attidentity when 'a' then 'generated always as identity' when 'd' then 'generated by default as identity' end,
    case attgenerated when '' then 'default ' when 'v' then 'generated virtual as ' else 'generated always as ' end
      || pg_get_expr(adbin, adrelid)), null, a.xmin
from classes c join pg_attribute a on attrelid = c.oid left join pg_attrdef d on adrelid = attrelid and adnum = attnum
where relkind in ('r', 'p', 'f') and attnum > 0 and not attisdropped

union all
-- A foreign key is kept by triggers of PostgreSQL's own; while they are disabled, it does not hold.
select 'constraint', name || '.' || quote_ident(conname), pg_get_constraintdef(k.oid) || case when exists
    (select from pg_trigger where tgconstraint = k.oid and tgenabled = 'D') then ' disabled' else '' end, null, k.xmin
from pg_constraint k join classes c on c.oid = conrelid where contype in ('c', 'p', 'u', 'f', 'x')

union all
select 'index', name || '.' || quote_ident(i.relname),
  pg_get_indexdef(i.oid) || case when indisvalid then '' else ' invalid' end, null, x.xmin
from pg_index x join classes c on c.oid = indrelid join pg_class i on i.oid = indexrelid
where not exists (select from pg_constraint where conindid = indexrelid and contype in ('p', 'u', 'x'))

union all
select 'trigger', name || '.' || quote_ident(tgname),
  pg_get_triggerdef(t.oid) || coalesce(' enabled ' || nullif(tgenabled, 'O')::text, ''), null, t.xmin
from pg_trigger t join classes c on c.oid = tgrelid where not tgisinternal

union all
select 'rule', name || '.' || quote_ident(rulename),
  pg_get_ruledef(r.oid) || coalesce(' enabled ' || nullif(ev_enabled, 'O')::text, ''), null, r.xmin
from pg_rewrite r join classes c on c.oid = ev_class where rulename <> '_RETURN'

union all
select 'policy', name || '.' || quote_ident(polname), concat_ws(' ', case when not polpermissive then 'restrictive' end,
    'for ' || polcmd::text, 'to ' || (select string_agg(coalesce(quote_ident(rolname), 'public'), ', ' order by rolname)
      from unnest(polroles) as x left join pg_roles on oid = x),
    'using ' || pg_get_expr(polqual, polrelid), 'check ' || pg_get_expr(polwithcheck, polrelid)), null, p.xmin
from pg_policy p join classes c on c.oid = polrelid

union all
select 'function', name, case when prokind = 'a' then (select concat_ws(' ', 'aggregate',
      pg_get_function_arguments(p.oid), 'returns', prorettype::regtype, aggtransfn, aggtranstype::regtype, agginitval,
      nullif(aggfinalfn::text, '-'), nullif(aggcombinefn::text, '-'), proparallel)
      from pg_aggregate where aggfnoid = p.oid)
    when lanname in ('sql', 'plpgsql') then split_part(pg_get_functiondef(p.oid), E'\nAS $', 1)
    else pg_get_functiondef(p.oid) end,
  case when lanname in ('sql', 'plpgsql') then prosrc end,
  (select xmin from pg_depend where classid = p.tableoid and objid = p.oid and refclassid = 'pg_namespace'::regclass)
from procs p join pg_language l on l.oid = prolang

union all
select 'grants', name, case when owns then 'owner' else coalesce(granted, 'none') end, null, written
from grants where owns or granted is distinct from usual

union all
-- Of these only the name is compared.
select replace(o.type, ' ', '-'), o.identity, '', null, written
from rarer, pg_identify_object(classid, objid, 0) as o
where objid >= 16384 and (classid, objid) not in (table brought)
