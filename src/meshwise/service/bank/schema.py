"""The bank's tables, the functions in the database that a request calls, and the books as they begin.

What a request decides in the ordinary case is one call of one function: a transaction of several statements
would be as many round trips, each through two sidecars. The rules are `domain`'s (`decide`, `book`, `hold`);
tests compare the two. What is rare (compensation) is written as statements in `ledger`.
"""

from __future__ import annotations

from typing import Any

import asyncpg

MUTED_EVERY = 50
"""Every so many users take no notifications: their sagas are compensated in ordinary operation."""

_TABLES = """
CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, muted boolean NOT NULL,
                    allowance bigint NOT NULL);
CREATE TABLE reservations (saga text PRIMARY KEY, user_id bigint NOT NULL, amount bigint NOT NULL,
                           hold text NOT NULL);
CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE transfers (key text PRIMARY KEY, source bigint NOT NULL, target bigint NOT NULL,
                        amount bigint NOT NULL, outcome text NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON transfers (source, at);
CREATE TABLE sagas (key text PRIMARY KEY, source bigint NOT NULL, target bigint NOT NULL,
                    amount bigint NOT NULL, state text NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON sagas (at) WHERE state NOT IN ('completed', 'compensated');
CREATE TABLE notifications (saga text PRIMARY KEY, user_id bigint NOT NULL, text text NOT NULL,
                            hold text NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON notifications (user_id, at);
"""

_FUNCTIONS = """
CREATE FUNCTION book_transfer(k text, s bigint, t bigint, a bigint, overdraft boolean) RETURNS text AS $$
DECLARE stored transfers; has bigint; found_accounts int;
BEGIN
    INSERT INTO transfers VALUES (k, s, t, a, 'moved') ON CONFLICT (key) DO NOTHING;
    IF NOT FOUND THEN
        SELECT * INTO stored FROM transfers WHERE key = k;
        IF (stored.source, stored.target, stored.amount) IS DISTINCT FROM (s, t, a) THEN
            RETURN 'conflict';
        END IF;
        RETURN stored.outcome;
    END IF;
    PERFORM 1 FROM accounts WHERE id IN (s, t) ORDER BY id FOR UPDATE;
    GET DIAGNOSTICS found_accounts = ROW_COUNT;
    SELECT balance INTO has FROM accounts WHERE id = s;
    IF found_accounts < 2 OR (NOT overdraft AND has < a) THEN
        UPDATE transfers SET outcome = 'refused' WHERE key = k;
        RETURN 'refused';
    END IF;
    UPDATE accounts SET balance = balance + CASE WHEN id = s THEN -a ELSE a END WHERE id IN (s, t);
    RETURN 'moved';
END $$ LANGUAGE plpgsql;

CREATE FUNCTION book_step(k text, s bigint, t bigint, a bigint, stands text, moved text, refused text)
RETURNS text AS $$
DECLARE outcome text; following text;
BEGIN
    outcome := book_transfer(k, s, t, a, false);
    IF outcome = 'conflict' THEN RETURN outcome; END IF;
    UPDATE sagas SET state = CASE WHEN outcome = 'moved' THEN moved ELSE refused END, at = now()
        WHERE key = k AND state = stands RETURNING state INTO following;
    IF NOT FOUND THEN SELECT state INTO following FROM sagas WHERE key = k; END IF;
    RETURN following;
END $$ LANGUAGE plpgsql;

CREATE FUNCTION open_saga(k text, s bigint, t bigint, a bigint, first text) RETURNS sagas AS $$
DECLARE stored sagas;
BEGIN
    INSERT INTO sagas VALUES (k, s, t, a, first) ON CONFLICT (key) DO NOTHING RETURNING * INTO stored;
    IF NOT FOUND THEN SELECT * INTO stored FROM sagas WHERE key = k; END IF;
    RETURN stored;
END $$ LANGUAGE plpgsql;

CREATE FUNCTION advance_saga(k text, stands text, following text) RETURNS text AS $$
DECLARE stored text;
BEGIN
    UPDATE sagas SET state = following, at = now()
        WHERE key = k AND state = stands RETURNING state INTO stored;
    IF NOT FOUND THEN SELECT state INTO stored FROM sagas WHERE key = k; END IF;
    RETURN stored;
END $$ LANGUAGE plpgsql;

CREATE FUNCTION reserve(k text, u bigint, a bigint) RETURNS text AS $$
DECLARE has bigint; stored text;
BEGIN
    SELECT allowance INTO has FROM users WHERE id = u FOR UPDATE;
    SELECT hold INTO stored FROM reservations WHERE saga = k;
    IF FOUND THEN RETURN stored; END IF;
    IF has IS NULL OR has < a THEN
        INSERT INTO reservations VALUES (k, u, a, 'refused');
        RETURN 'refused';
    END IF;
    INSERT INTO reservations VALUES (k, u, a, 'held');
    UPDATE users SET allowance = allowance - a WHERE id = u;
    RETURN 'held';
END $$ LANGUAGE plpgsql;

CREATE FUNCTION notify_user(k text, u bigint, words text) RETURNS text AS $$
DECLARE deaf boolean; stored text;
BEGIN
    SELECT muted INTO deaf FROM users WHERE id = u;
    INSERT INTO notifications VALUES (k, u, words, CASE WHEN deaf IS FALSE THEN 'held' ELSE 'refused' END)
        ON CONFLICT (saga) DO NOTHING RETURNING hold INTO stored;
    IF NOT FOUND THEN SELECT hold INTO stored FROM notifications WHERE saga = k; END IF;
    RETURN stored;
END $$ LANGUAGE plpgsql;
"""

_EMPTY = "TRUNCATE users, accounts, transfers, sagas, reservations, notifications"
_END_OTHERS = """
SELECT pg_terminate_backend(pid, 3000) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""

ERRORS = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What a database raises that does not answer, or not as it should."""


async def prepare(url: str, accounts: int, balance: int, allowance: int) -> None:
    """Make tables and functions and fill them: every account with `balance` cents, every user with
    `allowance`."""
    connection: Any = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(_TABLES)
            await connection.execute(_FUNCTIONS)
            await _fill(connection, accounts, balance, allowance)
    finally:
        await connection.close()


async def begin_anew(url: str, accounts: int, balance: int, allowance: int) -> None:
    """The books as they were at the start, whatever was booked since; what still runs for a client that gave
    up is ended. Then everything is written to disk, so that no trial pays for the pages of the one before."""
    connection: Any = await asyncpg.connect(url)
    try:
        await connection.execute(_END_OTHERS)
        async with connection.transaction():
            await connection.execute(_EMPTY)
            await _fill(connection, accounts, balance, allowance)
        await connection.execute("ANALYZE")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def _fill(connection: Any, accounts: int, balance: int, allowance: int) -> None:
    await connection.execute(
        "INSERT INTO users SELECT n, 'user ' || n, n % $1 = $1 - 1, $2 FROM generate_series(0, $3) n",
        *(MUTED_EVERY, allowance, accounts - 1),
    )
    await connection.execute(
        "INSERT INTO accounts SELECT n, $1 FROM generate_series(0, $2) n", balance, accounts - 1
    )
