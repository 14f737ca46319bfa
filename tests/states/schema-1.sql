BEGIN TRANSACTION;
CREATE TABLE artifacts (
            run INTEGER NOT NULL REFERENCES runs, name TEXT, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
            PRIMARY KEY (run, name)) WITHOUT ROWID;
INSERT INTO "artifacts" VALUES(1,'stream.nvc','277089d91c0bdf4f2e6862ba7e4a07605119431f5d13f726dd352b06f1b206a9',5);
CREATE TABLE attempts (
            run INTEGER NOT NULL REFERENCES runs, attempt INTEGER NOT NULL, worker TEXT NOT NULL,
            dispatched_s REAL NOT NULL, started_s REAL, ended_s REAL, outcome TEXT, detail TEXT,
            PRIMARY KEY (run, attempt)) WITHOUT ROWID;
INSERT INTO "attempts" VALUES(1,1,'w1',1.79541392685609674456e+09,1.79541392686283516884e+09,1.795413926912699461e+09,'completed',NULL);
INSERT INTO "attempts" VALUES(2,1,'w1',1.79541392692438983918e+09,1.7954139269337215423e+09,1.79541392693469333647e+09,'bad-video','truncated');
INSERT INTO "attempts" VALUES(3,1,'w1',1.79541392694835710529e+09,NULL,1.79541392695182299614e+09,'cancelled','asked by the client');
INSERT INTO "attempts" VALUES(4,1,'w1',1.79541392746726417538e+09,1.79541392747079443931e+09,NULL,NULL,NULL);
CREATE TABLE clips (                        -- the newest row of a name is what it means now
            number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, sha256 TEXT NOT NULL,
            bytes INTEGER NOT NULL, info TEXT NOT NULL, at_s REAL NOT NULL);
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "counters" VALUES('accepted',5);
CREATE TABLE events (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,     -- never used twice: clients resume from it
            experiment INTEGER NOT NULL REFERENCES experiments,
            run INTEGER NOT NULL REFERENCES runs,
            kind TEXT NOT NULL, at_s REAL NOT NULL, data TEXT NOT NULL);
INSERT INTO "events" VALUES(1,1,1,'state',1.79541392685430622102e+09,'{"run":"exp_1795413926_55cee0","status":"queued","attempt":0,"worker":null,"reason":null}');
INSERT INTO "events" VALUES(2,1,1,'state',1.79541392685609674456e+09,'{"run":"exp_1795413926_55cee0","status":"dispatched","attempt":1,"worker":"w1","reason":null}');
INSERT INTO "events" VALUES(3,1,1,'state',1.79541392686283516884e+09,'{"run":"exp_1795413926_55cee0","status":"running","attempt":1,"worker":"w1","reason":null}');
INSERT INTO "events" VALUES(5,1,1,'state',1.795413926912699461e+09,'{"run":"exp_1795413926_55cee0","status":"completed","attempt":1,"worker":"w1","reason":null}');
INSERT INTO "events" VALUES(6,1,1,'result',1.795413926912699461e+09,'{"run":"exp_1795413926_55cee0","status":"completed","attempt":1,"metrics":{"bitrate_mbps":0.078,"psnr_db":38.1},"error":null}');
INSERT INTO "events" VALUES(7,2,2,'state',1.79541392692143416407e+09,'{"run":"exp_1795413926_20b758","status":"queued","attempt":0,"worker":null,"reason":null}');
INSERT INTO "events" VALUES(8,2,2,'state',1.79541392692438983918e+09,'{"run":"exp_1795413926_20b758","status":"dispatched","attempt":1,"worker":"w1","reason":null}');
INSERT INTO "events" VALUES(9,2,2,'state',1.7954139269337215423e+09,'{"run":"exp_1795413926_20b758","status":"running","attempt":1,"worker":"w1","reason":null}');
INSERT INTO "events" VALUES(10,2,2,'state',1.79541392693469333647e+09,'{"run":"exp_1795413926_20b758","status":"failed","attempt":1,"worker":"w1","reason":{"type":"bad-video","detail":"truncated"}}');
INSERT INTO "events" VALUES(11,2,2,'result',1.79541392693469333647e+09,'{"run":"exp_1795413926_20b758","status":"failed","attempt":1,"metrics":null,"error":{"type":"bad-video","detail":"truncated"}}');
INSERT INTO "events" VALUES(12,3,3,'state',1.79541392694039678569e+09,'{"run":"exp_1795413926_d419e8","status":"queued","attempt":0,"worker":null,"reason":null}');
INSERT INTO "events" VALUES(13,3,3,'state',1.79541392694835710529e+09,'{"run":"exp_1795413926_d419e8","status":"dispatched","attempt":1,"worker":"w1","reason":null}');
INSERT INTO "events" VALUES(14,3,3,'state',1.79541392695182299614e+09,'{"run":"exp_1795413926_d419e8","status":"cancelled","attempt":1,"worker":"w1","reason":{"type":"cancelled","detail":"asked by the client"}}');
INSERT INTO "events" VALUES(15,3,3,'result',1.79541392695182299614e+09,'{"run":"exp_1795413926_d419e8","status":"cancelled","attempt":1,"metrics":null,"error":{"type":"cancelled","detail":"asked by the client"}}');
INSERT INTO "events" VALUES(16,4,4,'state',1.79541392746579575537e+09,'{"run":"exp_1795413927_08cc96","status":"queued","attempt":0,"worker":null,"reason":null}');
INSERT INTO "events" VALUES(17,4,4,'state',1.79541392746726417538e+09,'{"run":"exp_1795413927_08cc96","status":"dispatched","attempt":1,"worker":"w1","reason":null}');
INSERT INTO "events" VALUES(18,4,4,'state',1.79541392747079443931e+09,'{"run":"exp_1795413927_08cc96","status":"running","attempt":1,"worker":"w1","reason":null}');
INSERT INTO "events" VALUES(19,4,4,'progress',1.79541392747848725314e+09,'{"run":"exp_1795413927_08cc96","attempt":1,"phase":null,"fraction":null,"frame":null,"frames":null,"fps":null,"eta_s":null}');
INSERT INTO "events" VALUES(20,5,5,'state',1.79541392748051095015e+09,'{"run":"exp_1795413927_4fafae","status":"queued","attempt":0,"worker":null,"reason":null}');
CREATE TABLE experiments (
            number INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of acceptance; what pages of a list go by
            id TEXT NOT NULL UNIQUE,
            state TEXT NOT NULL,                       -- follows from the states of its runs
            label TEXT NOT NULL,
            document TEXT NOT NULL,                    -- the request, filled in
            accepted_s REAL NOT NULL,
            finished_s REAL,
            principal TEXT NOT NULL,                   -- id of the key that submitted it
            trace TEXT NOT NULL);
INSERT INTO "experiments" VALUES(1,'exp_1795413926_55cee0','completed','done','{"clip":"carphone","codec":"nvc","model":"nvc-1","quality":40,"frames":null,"first_frame":0,"structure":"random_access","intra_period":64,"effort":0,"bitrate_mbps":null,"psnr_db":null,"device":"auto","timeout_s":600,"keep_reconstruction":true,"label":"done","tags":{"paper":"table-2"}}',1.79541392685430622102e+09,1.795413926912699461e+09,'','00-cd01a393f64195bddde7995d62a10179-35317cb887e39e04-01');
INSERT INTO "experiments" VALUES(2,'exp_1795413926_20b758','failed','','{"clip":"carphone","codec":"nvc","model":"nvc-1","quality":41,"frames":null,"first_frame":0,"structure":"random_access","intra_period":64,"effort":0,"bitrate_mbps":null,"psnr_db":null,"device":"auto","timeout_s":600,"keep_reconstruction":true,"label":"","tags":{}}',1.79541392692143416407e+09,1.79541392693469333647e+09,'','00-bce7cce9867eb0cf9f7ab606e08986bc-83c444a354280ecd-01');
INSERT INTO "experiments" VALUES(3,'exp_1795413926_d419e8','cancelled','','{"clip":"carphone","codec":"nvc","model":"nvc-1","quality":42,"frames":null,"first_frame":0,"structure":"random_access","intra_period":64,"effort":0,"bitrate_mbps":null,"psnr_db":null,"device":"auto","timeout_s":600,"keep_reconstruction":true,"label":"","tags":{}}',1.79541392694039678569e+09,1.79541392695182299614e+09,'','00-b6f8f7e6c4654d7599be1ab73a0331e2-dcad1bd7596752bb-01');
INSERT INTO "experiments" VALUES(4,'exp_1795413927_08cc96','running','','{"clip":"carphone","codec":"nvc","model":"nvc-1","quality":43,"frames":null,"first_frame":0,"structure":"random_access","intra_period":64,"effort":0,"bitrate_mbps":null,"psnr_db":null,"device":"auto","timeout_s":600,"keep_reconstruction":true,"label":"","tags":{}}',1.79541392746579575537e+09,NULL,'','00-d4ad135e696745e5a76bbc65ce78191b-d041c3022205bb6d-01');
INSERT INTO "experiments" VALUES(5,'exp_1795413927_4fafae','queued','','{"clip":"carphone","codec":"nvc","model":"nvc-1","quality":44,"frames":null,"first_frame":0,"structure":"random_access","intra_period":64,"effort":0,"bitrate_mbps":null,"psnr_db":null,"device":"auto","timeout_s":600,"keep_reconstruction":true,"label":"","tags":{}}',1.79541392748051095015e+09,NULL,'','00-96800b46cc97f5683e0a188a7063aea5-feb5abdf81e938a1-01');
CREATE TABLE idempotency (
            principal TEXT, key TEXT, body_sha256 TEXT NOT NULL, experiment TEXT NOT NULL, at_s REAL NOT NULL,
            PRIMARY KEY (principal, key)) WITHOUT ROWID;
INSERT INTO "idempotency" VALUES('','old-key','92c86332138cd60f8e222f326e2658acd1e919459aadd22ea48ff39b74d4f756','exp_1795413927_08cc96',1.79541392746579575537e+09);
CREATE TABLE keys (
            id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, role TEXT NOT NULL, label TEXT NOT NULL,
            created_s REAL NOT NULL, expires_s REAL, revoked_s REAL) WITHOUT ROWID;
CREATE TABLE pulse (one INTEGER PRIMARY KEY CHECK (one = 1), at_s REAL NOT NULL);
CREATE TABLE refused (
            number INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL NOT NULL, run TEXT NOT NULL,
            attempt INTEGER NOT NULL, what TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE results (
            run INTEGER PRIMARY KEY REFERENCES runs,
            metrics TEXT, error TEXT,                  -- small parts first: lists read no further
            result TEXT);
INSERT INTO "results" VALUES(1,'{"bitrate_mbps":0.078,"psnr_db":38.1}',NULL,'{"encoding_result":{"compressed_data":"x","bytes":5,"encode_s":0.1},"decoding_result":{"reconstructed_video":null,"matches_encoder":true,"quality_metrics":{"psnr":38.1}},"metrics":{"bitrate_mbps":0.078,"psnr_db":38.1},"frames":[{"index":0,"type":"I","bytes":5,"psnr_db":38.1}],"clip":{"name":"carphone","sha256":"00","width":176,"height":144},"provenance":{"version":"0","seed":0}}');
INSERT INTO "results" VALUES(2,NULL,'{"type":"bad-video","detail":"truncated"}',NULL);
INSERT INTO "results" VALUES(3,NULL,'{"type":"cancelled","detail":"asked by the client"}',NULL);
CREATE TABLE runs (
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
            clip TEXT NOT NULL);
INSERT INTO "runs" VALUES(1,'exp_1795413926_55cee0',1,'completed',1,0,0,NULL,1.795413926912699461e+09,'{"clip":"carphone","codec":"nvc","model":"nvc-1","quality":40,"frames":null,"first_frame":0,"structure":"random_access","intra_period":64,"effort":0,"bitrate_mbps":null,"psnr_db":null,"device":"auto","timeout_s":600,"keep_reconstruction":true,"label":"done","tags":{"paper":"table-2"}}','{"name":"carphone","sha256":null,"url":null}');
INSERT INTO "runs" VALUES(2,'exp_1795413926_20b758',2,'failed',1,1,0,NULL,1.79541392693469333647e+09,'{"clip":"carphone","codec":"nvc","model":"nvc-1","quality":41,"frames":null,"first_frame":0,"structure":"random_access","intra_period":64,"effort":0,"bitrate_mbps":null,"psnr_db":null,"device":"auto","timeout_s":600,"keep_reconstruction":true,"label":"","tags":{}}','{"name":"carphone","sha256":null,"url":null}');
INSERT INTO "runs" VALUES(3,'exp_1795413926_d419e8',3,'cancelled',1,0,0,NULL,1.79541392695182299614e+09,'{"clip":"carphone","codec":"nvc","model":"nvc-1","quality":42,"frames":null,"first_frame":0,"structure":"random_access","intra_period":64,"effort":0,"bitrate_mbps":null,"psnr_db":null,"device":"auto","timeout_s":600,"keep_reconstruction":true,"label":"","tags":{}}','{"name":"carphone","sha256":null,"url":null}');
INSERT INTO "runs" VALUES(4,'exp_1795413927_08cc96',4,'running',1,0,0,'w1',NULL,'{"clip":"carphone","codec":"nvc","model":"nvc-1","quality":43,"frames":null,"first_frame":0,"structure":"random_access","intra_period":64,"effort":0,"bitrate_mbps":null,"psnr_db":null,"device":"auto","timeout_s":600,"keep_reconstruction":true,"label":"","tags":{}}','{"name":"carphone","sha256":null,"url":null}');
INSERT INTO "runs" VALUES(5,'exp_1795413927_4fafae',5,'queued',0,0,0,NULL,NULL,'{"clip":"carphone","codec":"nvc","model":"nvc-1","quality":44,"frames":null,"first_frame":0,"structure":"random_access","intra_period":64,"effort":0,"bitrate_mbps":null,"psnr_db":null,"device":"auto","timeout_s":600,"keep_reconstruction":true,"label":"","tags":{}}','{"name":"carphone","sha256":null,"url":null}');
CREATE TABLE tags (
            name TEXT, value TEXT, experiment INTEGER NOT NULL REFERENCES experiments,
            PRIMARY KEY (name, value, experiment)) WITHOUT ROWID;
INSERT INTO "tags" VALUES('paper','table-2',1);
CREATE TABLE workers (name TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "workers" VALUES('w1','{"url":"http://127.0.0.1:33173","boot_id":"w1","drained":false,"device":"cpu","threads":1,"codecs":["nvc"],"models":{},"version":"0"}');
CREATE INDEX experiments_by_state ON experiments (state, number);
CREATE INDEX runs_by_state ON runs (state, number);
CREATE INDEX runs_by_experiment ON runs (experiment, state);
CREATE INDEX artifacts_by_hash ON artifacts (sha256);
CREATE INDEX events_by_experiment ON events (experiment, seq);
CREATE INDEX progress_by_run ON events (run) WHERE kind = 'progress';
CREATE UNIQUE INDEX one_result ON events (run) WHERE kind = 'result';
CREATE INDEX idempotency_by_age ON idempotency (at_s);
CREATE INDEX clips_by_name ON clips (name, number);
CREATE INDEX clips_by_hash ON clips (sha256, number);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('experiments',5);
INSERT INTO "sqlite_sequence" VALUES('runs',5);
INSERT INTO "sqlite_sequence" VALUES('events',20);
COMMIT;
PRAGMA user_version = 1;
