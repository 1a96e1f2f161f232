-- The tripwire's second detector, and what an operator does with a trip.

-- `max_drop_value` is the drop of an ABSOLUTE wire in the metric's own units; without it `max_drop_fraction` is taken as units.
-- No `false_trip_arl` or `tolerance_fraction` means the default of the action.
ALTER TABLE regression_policy
    ADD detector            text NOT NULL DEFAULT 'PLAIN' CHECK (detector IN ('PLAIN', 'SEQUENTIAL')),
    ADD direction           text NOT NULL DEFAULT 'HIGHER_IS_BETTER'
                            CHECK (direction IN ('HIGHER_IS_BETTER', 'LOWER_IS_BETTER')),
    ADD effect              text NOT NULL DEFAULT 'RELATIVE' CHECK (effect IN ('RELATIVE', 'ABSOLUTE')),
    ADD max_drop_value      numeric(20,6) CHECK (max_drop_value > 0 AND max_drop_value <= 1000000000000),
    ADD mode                text NOT NULL DEFAULT 'ENFORCE' CHECK (mode IN ('ENFORCE', 'SHADOW')),
    ADD on_stale            text NOT NULL DEFAULT 'WARN' CHECK (on_stale IN ('IGNORE', 'WARN', 'TRIP')),
    ADD stale_after_seconds bigint CHECK (stale_after_seconds BETWEEN 1 AND 31536000),
    ADD false_trip_arl      bigint CHECK (false_trip_arl BETWEEN 100 AND 1000000000000),
    ADD tolerance_fraction  numeric(7,6) CHECK (tolerance_fraction >= 0 AND tolerance_fraction < 1),
    ADD CHECK (max_drop_value IS NULL OR effect = 'ABSOLUTE'),
    ADD CHECK (on_stale <> 'TRIP' OR stale_after_seconds IS NOT NULL);

-- A baseline that was frozen or reset, by version. It is the events of the series behind `after_event`, `events` of them; their sum is
-- there once all of them are. The events themselves stand in kpi_event.
CREATE TABLE regression_baseline (
    domain      text NOT NULL CHECK (domain ~ '^[A-Z0-9_.-]{1,80}$'),
    metric      text NOT NULL CHECK (metric ~ '^[a-z0-9_.-]{1,64}$'),
    version     bigint NOT NULL CHECK (version > 0),
    source      text NOT NULL CHECK (source IN ('FROZEN', 'LAST_N', 'NEXT_N')),
    after_event bigint NOT NULL CHECK (after_event >= 0),
    events      bigint NOT NULL CHECK (events BETWEEN 1 AND 10000),
    actor       text CHECK (char_length(actor) BETWEEN 1 AND 200),
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (domain, metric, version)
);

-- `frozen_*` is the baseline of a SEQUENTIAL wire, its sum null while events are missing; `bet_*`, `began_*` and `tally_*` are the
-- evidence since then (docs/TRIPWIRE.md), as doubles, bit for bit.
ALTER TABLE regression_state
    DROP CONSTRAINT regression_state_check,
    ADD acknowledged     boolean NOT NULL DEFAULT false,
    ADD baseline_events  bigint NOT NULL DEFAULT 0 CHECK (baseline_events >= 0),
    ADD current_events   bigint NOT NULL DEFAULT 0 CHECK (current_events >= 0),
    ADD baseline_version bigint NOT NULL DEFAULT 0 CHECK (baseline_version >= 0),
    ADD frozen_after     bigint CHECK (frozen_after >= 0),
    ADD frozen_events    bigint CHECK (frozen_events BETWEEN 1 AND 10000),
    ADD frozen_sum       numeric(38,6),
    ADD bet_1            double precision NOT NULL DEFAULT 1,
    ADD bet_2            double precision NOT NULL DEFAULT 1,
    ADD bet_3            double precision NOT NULL DEFAULT 1,
    ADD began_events_1   bigint NOT NULL DEFAULT 0,
    ADD began_events_2   bigint NOT NULL DEFAULT 0,
    ADD began_events_3   bigint NOT NULL DEFAULT 0,
    ADD began_sum_1      numeric(38,6) NOT NULL DEFAULT 0,
    ADD began_sum_2      numeric(38,6) NOT NULL DEFAULT 0,
    ADD began_sum_3      numeric(38,6) NOT NULL DEFAULT 0,
    ADD tally_events     bigint NOT NULL DEFAULT 0,
    ADD tally_sum        numeric(38,6) NOT NULL DEFAULT 0,
    ADD evidence_after   bigint NOT NULL DEFAULT 0 CHECK (evidence_after >= 0),
    -- The latch: triggered only while a trip stands; one that stands without it was made in SHADOW mode.
    ADD CHECK (trip_id IS NOT NULL OR NOT triggered),
    ADD CHECK (trip_id IS NOT NULL OR NOT acknowledged),
    ADD CHECK ((frozen_after IS NULL) = (frozen_events IS NULL)),
    ADD CHECK (frozen_sum IS NULL OR frozen_after IS NOT NULL);

-- A trip of a series that went silent has no windows and no drop; a baseline may be 0 or less where the effect is ABSOLUTE.
ALTER TABLE regression_trip
    DROP CONSTRAINT regression_trip_baseline_events_check,
    DROP CONSTRAINT regression_trip_baseline_sum_check,
    DROP CONSTRAINT regression_trip_current_events_check,
    DROP CONSTRAINT regression_trip_kpi_seq_check,
    DROP CONSTRAINT regression_trip_series_seq_check,
    ALTER drop_fraction DROP NOT NULL,
    ADD CHECK (kpi_seq >= 0 AND series_seq >= 0),
    ADD CHECK (baseline_events >= 0 AND current_events >= 0),
    ADD detector        text NOT NULL DEFAULT 'PLAIN' CHECK (detector IN ('PLAIN', 'SEQUENTIAL')),
    ADD cause           text NOT NULL DEFAULT 'DROP' CHECK (cause IN ('DROP', 'STALE')),
    ADD shadow          boolean NOT NULL DEFAULT false,
    ADD evidence        double precision,
    ADD began_at_event  bigint CHECK (began_at_event > 0),
    ADD acknowledged_at timestamptz,
    ADD acknowledged_by text CHECK (char_length(acknowledged_by) BETWEEN 1 AND 200),
    ADD verdict         text CHECK (verdict IN ('TRUE_REGRESSION', 'FALSE_ALARM', 'EXPECTED_CHANGE')),
    ADD rearm_baseline  text CHECK (rearm_baseline IN ('KEEP', 'RESET_LAST_N', 'RESET_NEXT_N')),
    ADD CHECK ((acknowledged_at IS NULL) = (verdict IS NULL)),
    ADD CHECK (cause = 'STALE' OR (drop_fraction IS NOT NULL AND baseline_events > 0 AND current_events > 0));

-- PostgreSQL reads the CHECKs of a table anew for every statement: those of measurements, which are written in batches, are
-- what the service's own types guarantee.
ALTER TABLE kpi_event
    DROP CONSTRAINT kpi_event_principal_check,
    DROP CONSTRAINT kpi_event_actor_check,
    DROP CONSTRAINT kpi_event_request_id_check,
    DROP CONSTRAINT kpi_event_correlation_id_check,
    DROP CONSTRAINT kpi_event_domain_check,
    DROP CONSTRAINT kpi_event_metric_check,
    DROP CONSTRAINT kpi_event_event_id_check,
    DROP CONSTRAINT kpi_event_detail_check;
