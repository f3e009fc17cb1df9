-- The leg now: one row for each record of aodb-query-flightleg, which is the truth. A reader may rely on
-- names, types and meanings; columns are only ever added.
CREATE TABLE flight_leg (
    flight_id text PRIMARY KEY,
    flight_number text NOT NULL,
    airline text NOT NULL,
    -- Names are null where reference data did not know the code; see gaps.
    airline_name text,
    origin text NOT NULL,
    origin_name text,
    destination text NOT NULL,
    destination_name text,
    aircraft text,
    aircraft_model text,
    status text NOT NULL,
    stand text,
    stand_allocated_by text,
    stand_allocated_at timestamptz,
    gate text,
    scheduled_departure timestamptz NOT NULL,
    estimated_departure timestamptz,
    actual_departure timestamptz,
    -- Minutes; early is negative.
    departure_delay_minutes integer,
    -- Null where the destination's time zone is not known; see gaps.
    scheduled_arrival timestamptz,
    estimated_arrival timestamptz,
    actual_arrival timestamptz,
    arrival_delay_minutes integer,
    cancellation_reason text,
    -- What reference data did not know: an array of {field, value, code}.
    gaps jsonb NOT NULL,
    -- The version of the leg's last event; a row is never replaced by one of a lower version.
    version bigint NOT NULL,
    -- The time of the leg's last event.
    updated_at timestamptz NOT NULL
);

CREATE INDEX flight_leg_status ON flight_leg (status);
CREATE INDEX flight_leg_origin ON flight_leg (origin, scheduled_departure);
CREATE INDEX flight_leg_destination ON flight_leg (destination, scheduled_arrival);
