-- One job as psql, a trigger or another language says it, checked: its id, its payload, and the rest as
-- holdfast_admit takes it. An error names the field, its value and what would work. No setting of the caller's session
-- says how a value is read.
CREATE OR REPLACE FUNCTION {schema}.holdfast_drafted(
    said json, OUT job_id uuid, OUT draft json, OUT body bytea
)
LANGUAGE plpgsql
SET standard_conforming_strings = on -- backslashes
AS $function$
DECLARE
    field record;
    wrong text;
    stamp bytea;
    key json;
    base bigint;
    most bigint;
    timeout bigint;
    ends boolean;
    moment bigint := {schema}.holdfast_now();
    due bigint;
    which text;
    ends_at bigint[]; -- of expires, deadline
    ends_in bigint[];
BEGIN
    IF json_typeof(said) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'a job is a JSON object such as {"task": "shop.send", "args": [42]}, not %', left(said::text, 100)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR field IN
        SELECT entry.key AS name, entry.value AS said, json_typeof(entry.value) AS kind,
            CASE WHEN json_typeof(entry.value) NOT IN ('array', 'object') THEN entry.value #>> '{}' END AS text
        FROM json_each(said) AS entry
        WHERE json_typeof(entry.value) <> 'null'
    LOOP
        ends := field.name IN ('expires', 'deadline');
        -- Of a time that ends a job both forms are read: a length, and an instant.
        wrong := CASE CASE WHEN ends AND field.kind = 'string' AND field.text ~ '^[0-9]{4}-' THEN 'at' ELSE field.name END
            WHEN 'task' THEN CASE WHEN field.kind <> 'string' OR field.text !~ '^[A-Za-z0-9_.:-]{1,100}$'
                THEN 'a name has 1 to 100 letters, digits, or any of _ . : -' END
            WHEN 'queue' THEN CASE WHEN field.kind <> 'string' OR field.text !~ '^[A-Za-z0-9_.:-]{1,100}$'
                THEN 'a name has 1 to 100 letters, digits, or any of _ . : -' END
            WHEN 'args' THEN CASE WHEN field.kind <> 'array' THEN 'a JSON array' END
            WHEN 'kwargs' THEN CASE WHEN field.kind <> 'object' THEN 'a JSON object' END
            WHEN 'id' THEN CASE
                WHEN field.kind <> 'string' OR field.text !~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' THEN 'a UUID' END
            WHEN 'priority' THEN CASE WHEN field.kind <> 'number' OR field.text !~ '^-?([0-9]{1,2}|100)$'
                THEN 'a whole number from -100 to 100, higher first' END
            WHEN 'at' THEN CASE
                -- One form, which no DateStyle reads otherwise.
                WHEN field.kind <> 'string' OR field.text LIKE '0000%' OR field.text !~ (
                    '^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[T ]([01][0-9]|2[0-3]):[0-5][0-9]'
                    '(:[0-5][0-9]([.][0-9]{1,9})?)?(Z|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?)$'
                ) THEN 'a time with its zone, such as "2030-01-31T09:00:00+01:00"'
                WHEN substring(field.text FROM 6 FOR 5) >= CASE substring(field.text FROM 6 FOR 2)
                    WHEN '02' THEN CASE
                        WHEN left(field.text, 4) ~ '(([02468][048]|[13579][26])00|([02468][48]|[13579][26]|[2468]0))$'
                            THEN '02-30' ELSE '02-29' END
                    WHEN '04' THEN '04-31' WHEN '06' THEN '06-31' WHEN '09' THEN '09-31' WHEN '11' THEN '11-31'
                    ELSE '13'
                END THEN 'that month has no such day'
            END
            WHEN 'headers' THEN CASE WHEN field.kind <> 'object' OR EXISTS (
                SELECT 1 FROM json_each(CASE WHEN field.kind = 'object' THEN field.said ELSE '{}' END) AS header
                WHERE json_typeof(header.value) <> 'string'
            ) THEN 'a JSON object of texts'
                WHEN EXISTS (SELECT 1 FROM json_object_keys(field.said) AS header WHERE starts_with(header, 'holdfast.'))
                    THEN 'names that begin with holdfast. are the library''s own'
                WHEN octet_length(field.said::text) > 16384 THEN 'at most 16 KiB of JSON' END
            WHEN 'tags' THEN CASE WHEN field.kind <> 'array' OR EXISTS (
                SELECT 1
                FROM json_array_elements(CASE WHEN field.kind = 'array' THEN field.said ELSE '[]' END)
                    WITH ORDINALITY AS tag (said, n)
                WHERE json_typeof(tag.said) <> 'string' OR length(tag.said #>> '{}') NOT BETWEEN 1 AND 100 OR tag.n > 20
            ) THEN 'at most 20 texts of 1 to 100 characters' END
            WHEN 'unique' THEN CASE WHEN field.kind NOT IN ('string', 'object') THEN 'a text, or a JSON object' END
            WHEN 'retry' THEN CASE WHEN field.kind <> 'object' THEN 'a JSON object such as {"max_attempts": 5}' END
            WHEN 'run_in' THEN CASE WHEN field.text IS DISTINCT FROM 'process' THEN '"process" or nothing' END
            ELSE CASE WHEN field.name NOT IN ('delay', 'timeout', 'keep', 'expires', 'deadline') THEN
                'there is no such field; there are task, args, kwargs, id, queue, priority, delay, at, expires, deadline, '
                'tags, headers, unique, retry, timeout, keep, run_in'
            END
        END;
        IF wrong IS NOT NULL THEN
            RAISE EXCEPTION '%=%: %', field.name, left(field.said::text, 100), wrong
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
    IF said ->> 'task' IS NULL THEN
        RAISE EXCEPTION 'task: missing; a job is a JSON object such as {"task": "shop.send", "args": [42]}'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF said ->> 'delay' IS NOT NULL AND said ->> 'at' IS NOT NULL THEN
        RAISE EXCEPTION 'delay and at exclude each other' USING ERRCODE = 'invalid_parameter_value';
    END IF;

    job_id := (said ->> 'id')::uuid;
    IF job_id IS NULL THEN  -- version 7: in the order of time
        stamp := substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3);
        stamp := overlay(uuid_send(gen_random_uuid()) PLACING stamp FROM 1 FOR 6);
        job_id := encode(set_byte(stamp, 6, (get_byte(stamp, 6) & 15) | 112), 'hex')::uuid;
    END IF;
    body := convert_to('{' || concat_ws(',',
        '"args":' || CASE WHEN json_array_length(coalesce(nullif(said -> 'args' #>> '{}', '')::json, '[]')) > 0
            THEN (said -> 'args')::text END,
        '"kwargs":' || CASE WHEN EXISTS (SELECT 1 FROM json_each(coalesce(nullif(said -> 'kwargs' #>> '{}', '')::json, '{}')))
            THEN (said -> 'kwargs')::text END
    ) || '}', 'UTF8');
    IF octet_length(body) > 1048576 THEN
        RAISE EXCEPTION 'args and kwargs are % bytes of JSON, more than 1 MiB; pass a reference', octet_length(body)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    key := CASE json_typeof(said -> 'unique')
        WHEN 'string' THEN json_build_object('key', said ->> 'unique')
        WHEN 'object' THEN said -> 'unique'
    END;
    IF key IS NOT NULL AND (
        json_typeof(key -> 'key') IS DISTINCT FROM 'string' OR length(key ->> 'key') NOT BETWEEN 1 AND 200
        OR coalesce(key ->> 'until', 'finished') NOT IN ('started', 'finished')
        OR coalesce(key ->> 'on_clash', 'return') NOT IN ('return', 'raise', 'replace')
        OR (key ->> 'until' = 'started' AND key ->> 'hold' IS NOT NULL)
        OR EXISTS (SELECT 1 FROM json_each(key) AS part WHERE part.key NOT IN ('key', 'until', 'hold', 'on_clash'))
    ) THEN
        RAISE EXCEPTION 'unique=%: a text of 1 to 200 characters, or {"key": such a text, "until": "finished" or '
            '"started", "hold": "1h" (with finished), "on_clash": "return", "raise" or "replace"}', left(key::text, 100)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF EXISTS (
        SELECT 1 FROM json_each(coalesce(said -> 'retry', '{}')) AS part
        WHERE part.key NOT IN ('max_attempts', 'base_delay', 'max_delay', 'jitter', 'max_crashes')
        OR (part.key IN ('max_attempts', 'max_crashes') AND part.value::text !~ '^([0-9]{1,9}|null)$')
        OR (
            part.key = 'jitter'
            AND part.value::text !~ '^(0(\.[0-9]{1,30})?|1(\.0{1,30})?|[0-9](\.[0-9]{1,30})?[eE]-[0-9]{1,3}|null)$'
        )
    ) OR said -> 'retry' ->> 'max_attempts' = '0' THEN
        RAISE EXCEPTION 'retry=%: {"max_attempts": 1 or more, "base_delay": "1s", "max_delay": "5m", "jitter": 0 to 1, '
            '"max_crashes": 0 or more}, each of them or none', left((said -> 'retry')::text, 100)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    base := {schema}.holdfast_span(said -> 'retry' -> 'base_delay', 'base_delay', 1000);
    most := {schema}.holdfast_span(said -> 'retry' -> 'max_delay', 'max_delay', 300000);
    IF base > most THEN
        RAISE EXCEPTION 'retry=%: base_delay is longer than max_delay: give "max_delay" too',
            left((said -> 'retry')::text, 100)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    timeout := {schema}.holdfast_span(said -> 'timeout', 'timeout', NULL);
    IF timeout = 0 THEN
        RAISE EXCEPTION 'timeout=%: it must be more than zero, for example 30 or "5m"', said -> 'timeout'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    due := greatest(moment, coalesce(
        floor(extract(epoch FROM (said ->> 'at')::timestamptz) * 1000)::bigint,
        moment + {schema}.holdfast_span(said -> 'delay', 'delay', 0)
    ));
    FOR n IN 1..2 LOOP
        which := (ARRAY['expires', 'deadline'])[n];
        IF (said ->> which) ~ '^[0-9]{4}-' THEN
            ends_at[n] := floor(extract(epoch FROM (said ->> which)::timestamptz) * 1000)::bigint;
        ELSE
            ends_in[n] := {schema}.holdfast_span(said -> which, which, NULL);
        END IF;
        IF coalesce(ends_at[n], moment + ends_in[n]) <= due THEN
            RAISE EXCEPTION '%=%: the job is not due before that; give a later time', which, said -> which
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
    draft := json_build_object(
        'task', said ->> 'task',
        'queue', coalesce(said ->> 'queue', 'default'),
        'line', '',
        'priority', coalesce((said ->> 'priority')::integer, 0),
        'alone', coalesce(said ->> 'run_in', '') = 'process',
        'terms', json_build_array(
            coalesce((said -> 'retry' ->> 'max_attempts')::integer, 1),
            base,
            most,
            coalesce((said -> 'retry' ->> 'jitter')::numeric, 0.2),
            coalesce((said -> 'retry' ->> 'max_crashes')::integer, 3),
            timeout,
            {schema}.holdfast_span(said -> 'keep', 'keep', 86400000)
        )::text,
        'tags', coalesce(said -> 'tags', '[]'),
        'headers', coalesce((said -> 'headers')::text, ''),
        'delay', {schema}.holdfast_span(said -> 'delay', 'delay', 0),
        'at', floor(extract(epoch FROM (said ->> 'at')::timestamptz) * 1000)::bigint,
        'expires_at', ends_at[1],
        'expires_in', ends_in[1],
        'deadline_at', ends_at[2],
        'deadline_in', ends_in[2],
        'unique_key', key ->> 'key',
        'unique_until', CASE WHEN key IS NOT NULL THEN coalesce(key ->> 'until', 'finished') END,
        'unique_hold', {schema}.holdfast_span(key -> 'hold', 'hold', 0),
        'unique_clash', CASE WHEN key IS NOT NULL THEN coalesce(key ->> 'on_clash', 'return') END
    );
END
$function$;
