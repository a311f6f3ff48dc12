-- Coverage counts up to a minute ago: younger buckets are judged by freshness, not as gaps.
create or replace view debug.sample_coverage as
with symbols as (
  select u.symbol,
         (select min(s.ts) from str_aux.samples_5s s where s.symbol = u.symbol) as first_ts,
         (select max(s.ts) from str_aux.samples_5s s where s.symbol = u.symbol) as last_ts
    from settings.coin_universe u
   where u.enabled
), windows as (
  select w as window_ts, w + interval '30 minutes' as window_end
    from generate_series(
           date_bin('30 minutes', now(), 'epoch') - interval '60 minutes', now(), '30 minutes'
         ) w
), spans as (
  select symbol, window_ts, last_ts,
         greatest(window_ts, first_ts) as span_from,
         least(window_end, date_bin('5 seconds', now() - interval '60 seconds', 'epoch')) as span_to
    from symbols cross join windows
)
select p.symbol,
       p.window_ts,
       greatest(0, extract(epoch from p.span_to - p.span_from) / 5)::integer as expected,
       c.samples::integer as samples,
       extract(epoch from now() - p.last_ts)::double precision as age_s
  from spans p
 cross join lateral (
         select count(*) as samples
           from str_aux.samples_5s s
          where s.symbol = p.symbol and s.ts >= p.span_from and s.ts < p.span_to
       ) c;

create or replace view debug.sample_gaps as
select symbol, previous_ts as gap_after, ts as gap_before,
       (extract(epoch from ts - previous_ts) / 5 - 1)::integer as missing
  from (
         select s.symbol, s.ts, lag(s.ts) over (partition by s.symbol order by s.ts) as previous_ts
           from str_aux.samples_5s s
           join settings.coin_universe u on u.symbol = s.symbol and u.enabled
          where s.ts >= date_bin('30 minutes', now(), 'epoch') - interval '60 minutes'
       ) steps
 where ts - previous_ts > interval '5 seconds';

create or replace view debug.window_parts as
select k.symbol, k.window_ts,
       k.samples as kline_samples,
       t.samples as stats_samples,
       v.vector is not null as has_vector
  from market.klines k
  left join str_aux.window_stats t using (symbol, window_ts)
  left join str_aux.window_vectors v using (symbol, window_ts);
