-- `add` within a transaction that is the caller's: what fails is answered and leaves the
-- transaction as it was, and others are waited for as long as the caller's own settings say.
CREATE FUNCTION jobmill.join(
    p_channel text,
    p_queue text, p_now double precision,
    p_ids text[], p_names text[], p_payloads bytea[], p_policies bytea[], p_priorities bigint[],
    p_delays double precision[], p_run_ats double precision[], p_unique_keys text[],
    p_metadata bytea[], p_keep_results double precision[], p_keep_faileds double precision[],
    OUT statuses text[], OUT job_ids text[], OUT code text, OUT fault text
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT a.statuses, a.job_ids INTO statuses, job_ids FROM jobmill.add(
        p_queue, p_now, FALSE, p_ids, p_names, p_payloads, p_policies, p_priorities, p_delays,
        p_run_ats, p_unique_keys, p_metadata, p_keep_results, p_keep_faileds, NULL
    ) AS a;
    IF p_channel IS NOT NULL AND (statuses IS NULL OR 'added' = ANY (statuses)) THEN
        PERFORM pg_notify(p_channel, '');
    END IF;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, fault = MESSAGE_TEXT;
    statuses := NULL;
    job_ids := NULL;
END
$$;
