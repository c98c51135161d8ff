-- A journal as the first release with one wrote it. Never change this file: add one for each new version.
PRAGMA application_id=1095517258;
PRAGMA user_version=1;
BEGIN TRANSACTION;
CREATE TABLE arrived (
            place INTEGER PRIMARY KEY, sender TEXT NOT NULL, device TEXT NOT NULL, stream TEXT NOT NULL,
            sequence INTEGER NOT NULL, content INTEGER NOT NULL, data BLOB NOT NULL, redelivered INTEGER NOT NULL
        );
INSERT INTO "arrived" VALUES(7,'bob','phone','theirs',3,2,X'5B315D',0);
CREATE TABLE devices (
            id INTEGER PRIMARY KEY, user_id TEXT NOT NULL, device TEXT,
            queue INTEGER NOT NULL, stream TEXT NOT NULL, acknowledged INTEGER NOT NULL
        );
INSERT INTO "devices" VALUES(1,'bob','phone',2,'ours',4);
CREATE TABLE facts (name TEXT NOT NULL PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
INSERT INTO "facts" VALUES('device','main');
INSERT INTO "facts" VALUES('mark',X'EB8895965EC6AEBC70239ABB8273E514');
INSERT INTO "facts" VALUES('opened',1);
INSERT INTO "facts" VALUES('server','localhost:8765');
INSERT INTO "facts" VALUES('user','alice');
CREATE TABLE files (name TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO "files" VALUES('f',X'7265636F7264');
CREATE TABLE positions (
            device INTEGER NOT NULL, stream TEXT NOT NULL, sequence INTEGER NOT NULL, place INTEGER NOT NULL,
            PRIMARY KEY (device, stream)
        ) WITHOUT ROWID
        ;
INSERT INTO "positions" VALUES(1,'theirs',3,7);
CREATE TABLE queued (
            id INTEGER PRIMARY KEY, content INTEGER NOT NULL, data BLOB NOT NULL,
            queued_at REAL NOT NULL, movable INTEGER NOT NULL
        );
INSERT INTO "queued" VALUES(2199023255557,0,X'66697665',1700000000.0,1);
COMMIT;
