PRAGMA user_version = 2;
BEGIN TRANSACTION;
CREATE TABLE alarm (machine TEXT, alarm TEXT, body TEXT NOT NULL, PRIMARY KEY (machine, alarm)) WITHOUT ROWID;
INSERT INTO "alarm" VALUES('press-07','anomaly','{"machine":"press-07","alarm":"anomaly","base":1,"unknown":false,"out_of_service":false,"suppressed_by":[],"shelved_until":0,"ts_shelved":0,"occurrence":7,"seq":1,"event":"raise","acked":false,"priority":2,"severity":600,"severe":false,"recent":0,"on_count":0,"off_count":0,"stopped_count":0,"ts":1795000000000,"ts_first":0,"ts_onset":1795000000000,"ts_raised":1795000000000,"ts_acked":0,"ts_cleared":0,"by":"","comment":"","enrolled":false,"running":false,"quality":"bad","detail":"","capture":"","capture_sha256":"","score":-1.0,"p_value":-1.0,"fault":"","fault_code":0,"fault_confidence":0.0,"mode":"","top_channel":"","top_share":0.0,"top_band_hz_low":-1.0,"top_band_hz_high":-1.0,"top_change_db":0.0}');
CREATE TABLE audit (id INTEGER PRIMARY KEY, t_ms INTEGER NOT NULL, machine TEXT NOT NULL, verb TEXT NOT NULL,
                        alarm TEXT NOT NULL, occurrence INTEGER NOT NULL, command_id TEXT NOT NULL, by TEXT NOT NULL,
                        comment TEXT NOT NULL, until_ms INTEGER NOT NULL, via TEXT NOT NULL, error TEXT NOT NULL);
CREATE TABLE counter (queue TEXT, name TEXT, value INTEGER NOT NULL, PRIMARY KEY (queue, name)) WITHOUT ROWID;
INSERT INTO "counter" VALUES('influx','added',2);
INSERT INTO "counter" VALUES('influx','bytes',178);
INSERT INTO "counter" VALUES('influx','evicted',0);
INSERT INTO "counter" VALUES('influx','held',2);
INSERT INTO "counter" VALUES('influx','rejected',0);
INSERT INTO "counter" VALUES('influx','written',0);
INSERT INTO "counter" VALUES('mqtt','added',1);
INSERT INTO "counter" VALUES('mqtt','bytes',81);
INSERT INTO "counter" VALUES('mqtt','evicted',0);
INSERT INTO "counter" VALUES('mqtt','held',1);
INSERT INTO "counter" VALUES('mqtt','rejected',0);
INSERT INTO "counter" VALUES('mqtt','written',0);
CREATE TABLE fault (machine TEXT, fault TEXT, code INTEGER NOT NULL, PRIMARY KEY (machine, fault)) WITHOUT ROWID;
INSERT INTO "fault" VALUES('press-07','outer-race',2);
CREATE TABLE journal (id INTEGER PRIMARY KEY, machine TEXT, alarm TEXT, seq INTEGER, body TEXT NOT NULL,
                          UNIQUE (machine, alarm, seq));
INSERT INTO "journal" VALUES(1,'press-07','anomaly',1,'{"machine":"press-07","alarm":"anomaly","base":1,"unknown":false,"out_of_service":false,"suppressed_by":[],"shelved_until":0,"ts_shelved":0,"occurrence":7,"seq":1,"event":"raise","acked":false,"priority":2,"severity":600,"severe":false,"recent":0,"on_count":0,"off_count":0,"stopped_count":0,"ts":1795000000000,"ts_first":0,"ts_onset":1795000000000,"ts_raised":1795000000000,"ts_acked":0,"ts_cleared":0,"by":"","comment":"","enrolled":false,"running":false,"quality":"bad","detail":"","capture":"","capture_sha256":"","score":-1.0,"p_value":-1.0,"fault":"","fault_code":0,"fault_confidence":0.0,"mode":"","top_channel":"","top_share":0.0,"top_band_hz_low":-1.0,"top_band_hz_high":-1.0,"top_change_db":0.0}');
CREATE TABLE machine (machine TEXT PRIMARY KEY, occurrence INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "machine" VALUES('press-07',7);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('closed','1');
INSERT INTO "meta" VALUES('key','value');
CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,   -- never reused: an id names one thing for ever
        queue TEXT NOT NULL,                    -- influx | mqtt
        rank INTEGER NOT NULL,                  -- 0 is evicted before 1
        topic TEXT NOT NULL,                    -- '' for points
        qos INTEGER NOT NULL,
        retain INTEGER NOT NULL,
        payload BLOB NOT NULL,
        bytes INTEGER NOT NULL
    );
INSERT INTO "outbox" VALUES(1,'influx',1,'',0,0,X'6D2C6D616368696E653D70726573732D303720783D31692035',89);
INSERT INTO "outbox" VALUES(2,'mqtt',1,'B/press-07/event',1,0,X'37',81);
INSERT INTO "outbox" VALUES(3,'influx',0,'',0,0,X'6D2C6D616368696E653D70726573732D303720783D32692036',89);
CREATE TABLE quarantine (id INTEGER PRIMARY KEY, queue TEXT NOT NULL, payload BLOB NOT NULL, reason TEXT NOT NULL);
CREATE TABLE score (id INTEGER PRIMARY KEY, machine TEXT NOT NULL, t_ns INTEGER NOT NULL, score REAL NOT NULL,
                        p_value REAL NOT NULL, level INTEGER NOT NULL, fault_code INTEGER NOT NULL,
                        quality_code INTEGER NOT NULL);
INSERT INTO "score" VALUES(1,'press-07',1795000000000000000,1.5,0.01,2,0,0);
CREATE INDEX outbox_order ON outbox (queue, id);
CREATE INDEX outbox_eviction ON outbox (rank, id);
CREATE UNIQUE INDEX outbox_retained ON outbox (queue, topic) WHERE retain = 1;
CREATE TRIGGER outbox_in AFTER INSERT ON outbox BEGIN
        UPDATE counter SET value = value + 1 WHERE queue = NEW.queue AND name = 'held';
        UPDATE counter SET value = value + NEW.bytes WHERE queue = NEW.queue AND name = 'bytes';
    END;
CREATE TRIGGER outbox_out AFTER DELETE ON outbox BEGIN
        UPDATE counter SET value = value - 1 WHERE queue = OLD.queue AND name = 'held';
        UPDATE counter SET value = value - OLD.bytes WHERE queue = OLD.queue AND name = 'bytes';
    END;
CREATE UNIQUE INDEX fault_code ON fault (machine, code);
CREATE INDEX score_time ON score (machine, t_ns);
CREATE INDEX audit_command ON audit (machine, verb, command_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('outbox',3);
COMMIT;
