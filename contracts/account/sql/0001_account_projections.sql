-- The account now: one row for each record of billing.account.balances, which is the truth. A reader
-- may rely on names, types and meanings; columns are only ever added.
CREATE TABLE account_projections (
    account_id text PRIMARY KEY,
    balance numeric NOT NULL,
    -- Null as long as no event has named one.
    currency text,
    status text NOT NULL,
    -- The version of the account's last event; a row is never replaced by one of a lower version.
    version bigint NOT NULL,
    -- The timestamp of the account's last event.
    updated_at timestamptz NOT NULL
);

CREATE INDEX account_projections_status ON account_projections (status);
