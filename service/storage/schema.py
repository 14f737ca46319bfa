"""The database's schema, as the statements that lead from one version to the next.

A database's version (`PRAGMA user_version`) is how many of these steps were applied to it. A step that was released
never changes; what comes later is appended, so that every older state directory opens.

    experiments 1 ── n runs 1 ── n attempts         what was asked, its parts, who tried
                       runs 1 ── n runs             the segments of a clip that is cut
                       runs 1 ── 0…1 results        the one terminal record
                       runs 1 ── 0…1 figures        the few numbers of a result that many runs are compared by
                       runs 1 ── n artifacts        names for bytes kept under their hash
    experiments 1 ── n events                       the history clients replay: state, progress, result
"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
        "INSERT INTO counters VALUES ('accepted', 0)",
        """CREATE TABLE experiments (
            number INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of acceptance; what pages of a list go by
            id TEXT NOT NULL UNIQUE,
            state TEXT NOT NULL,                       -- follows from the states of its runs
            label TEXT NOT NULL,
            document TEXT NOT NULL,                    -- the request, filled in
            accepted_s REAL NOT NULL,
            finished_s REAL,
            principal TEXT NOT NULL,                   -- id of the key that submitted it
            trace TEXT NOT NULL)""",
        "CREATE INDEX experiments_by_state ON experiments (state, number)",
        """CREATE TABLE tags (
            name TEXT, value TEXT, experiment INTEGER NOT NULL REFERENCES experiments,
            PRIMARY KEY (name, value, experiment)) WITHOUT ROWID""",
        """CREATE TABLE runs (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            experiment INTEGER NOT NULL REFERENCES experiments,
            state TEXT NOT NULL,
            attempt INTEGER NOT NULL,                  -- the last one granted; 0: none yet
            tries INTEGER NOT NULL,                    -- ended attempts that count against the run
            returns INTEGER NOT NULL,                  -- ended attempts that do not
            worker TEXT,                               -- who holds the attempt while dispatched or running
            finished_s REAL,
            settings TEXT NOT NULL,
            clip TEXT NOT NULL)                        -- which bytes its clip's name meant when it was accepted
            """,
        "CREATE INDEX runs_by_state ON runs (state, number)",
        "CREATE INDEX runs_by_experiment ON runs (experiment, state)",
        """CREATE TABLE attempts (
            run INTEGER NOT NULL REFERENCES runs, attempt INTEGER NOT NULL, worker TEXT NOT NULL,
            dispatched_s REAL NOT NULL, started_s REAL, ended_s REAL, outcome TEXT, detail TEXT,
            PRIMARY KEY (run, attempt)) WITHOUT ROWID""",
        """CREATE TABLE results (
            run INTEGER PRIMARY KEY REFERENCES runs,
            metrics TEXT, error TEXT,                  -- small parts first: lists read no further
            result TEXT)""",
        """CREATE TABLE artifacts (
            run INTEGER NOT NULL REFERENCES runs, name TEXT, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
            PRIMARY KEY (run, name)) WITHOUT ROWID""",
        "CREATE INDEX artifacts_by_hash ON artifacts (sha256)",
        """CREATE TABLE events (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,     -- never used twice: clients resume from it
            experiment INTEGER NOT NULL REFERENCES experiments,
            run INTEGER NOT NULL REFERENCES runs,
            kind TEXT NOT NULL, at_s REAL NOT NULL, data TEXT NOT NULL)""",
        "CREATE INDEX events_by_experiment ON events (experiment, seq)",
        "CREATE INDEX progress_by_run ON events (run) WHERE kind = 'progress'",
        "CREATE UNIQUE INDEX one_result ON events (run) WHERE kind = 'result'",
        """CREATE TABLE idempotency (
            principal TEXT, key TEXT, body_sha256 TEXT NOT NULL, experiment TEXT NOT NULL, at_s REAL NOT NULL,
            PRIMARY KEY (principal, key)) WITHOUT ROWID""",
        "CREATE INDEX idempotency_by_age ON idempotency (at_s)",
        """CREATE TABLE clips (                        -- the newest row of a name is what it means now
            number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, sha256 TEXT NOT NULL,
            bytes INTEGER NOT NULL, info TEXT NOT NULL, at_s REAL NOT NULL)""",
        "CREATE INDEX clips_by_name ON clips (name, number)",
        "CREATE INDEX clips_by_hash ON clips (sha256, number)",
        "CREATE TABLE workers (name TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID",
        """CREATE TABLE refused (
            number INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL NOT NULL, run TEXT NOT NULL,
            attempt INTEGER NOT NULL, what TEXT NOT NULL, reason TEXT NOT NULL)""",
        """CREATE TABLE keys (
            id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, role TEXT NOT NULL, label TEXT NOT NULL,
            created_s REAL NOT NULL, expires_s REAL, revoked_s REAL) WITHOUT ROWID""",
        "CREATE TABLE pulse (one INTEGER PRIMARY KEY CHECK (one = 1), at_s REAL NOT NULL)",
    ),
    (
        # What tables, curves and repetitions need of a result, so that a thousand results need not be read for them.
        "CREATE TABLE figures (run INTEGER PRIMARY KEY REFERENCES runs, document TEXT NOT NULL)",
        """INSERT INTO figures SELECT run, json_object(
            'bitrate_mbps', json_extract(result, '$.metrics.bitrate_mbps'),
            'bpp', json_extract(result, '$.metrics.bpp'),
            'compression_ratio', json_extract(result, '$.metrics.compression_ratio'),
            'psnr_db', json_extract(result, '$.metrics.psnr_db'),
            'ssim', json_extract(result, '$.metrics.ssim'),
            'ms_ssim', json_extract(result, '$.metrics.ms_ssim'),
            'psnr_y', json_extract(result, '$.decoding_result.quality_metrics.psnr_y'),
            'bytes', json_extract(result, '$.encoding_result.bytes'),
            'encode_s', json_extract(result, '$.encoding_result.encode_s'),
            'decode_s', json_extract(result, '$.decoding_result.decode_s'),
            'stream_sha256', json_extract(result, '$.encoding_result.sha256'),
            'decoded_sha256', json_extract(result, '$.decoding_result.decoded_sha256'))
            FROM results WHERE result IS NOT NULL""",
        "ALTER TABLE experiments ADD COLUMN origin TEXT",   # {"rerun_of"} or {"clone_of"}: the id it was made from
    ),
    (
        # What was deleted is counted, so that the sum still holds; by its runs' ids late messages are known for late.
        "INSERT INTO counters VALUES ('deleted', 0)",
        "CREATE TABLE deleted (run TEXT PRIMARY KEY) WITHOUT ROWID",
    ),
    (
        # What keep_gb has removed stays known, so that documents can say so.
        """CREATE TABLE removed (
            run INTEGER NOT NULL REFERENCES runs, name TEXT, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
            at_s REAL NOT NULL, PRIMARY KEY (run, name)) WITHOUT ROWID""",
        # For quotas: what each key has used lately, and what it may.
        "CREATE INDEX experiments_by_principal ON experiments (principal, accepted_s)",
        "ALTER TABLE clips ADD COLUMN principal TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE keys ADD COLUMN quota TEXT NOT NULL DEFAULT '{}'",
    ),
    (
        # Segments of a run are runs: `whole` is that run's number, `waits` how many of its segments are to complete.
        "ALTER TABLE runs ADD COLUMN whole INTEGER REFERENCES runs",
        "ALTER TABLE runs ADD COLUMN waits INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX runs_by_whole ON runs (whole) WHERE whole IS NOT NULL",
        "INSERT INTO counters VALUES ('segments', 0)",     # of what was accepted
        "DROP INDEX runs_by_experiment",
        "CREATE INDEX runs_by_experiment ON runs (experiment, whole, state)",
    ),
)
