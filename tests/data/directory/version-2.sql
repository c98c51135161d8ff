-- A directory of the second version of the schema, with a privacy. Never change this file: add one for each new version.
PRAGMA application_id=1095517257;
PRAGMA user_version=2;
CREATE TABLE names (
    user_id TEXT NOT NULL PRIMARY KEY,
    public_key BLOB NOT NULL CHECK (length(public_key) = 32)
) WITHOUT ROWID;
CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), written INTEGER NOT NULL);
INSERT INTO names VALUES ('alice', X'6161616161616161616161616161616161616161616161616161616161616161');
INSERT INTO names VALUES ('straße', X'6262626262626262626262626262626262626262626262626262626262626262');
INSERT INTO probe VALUES (1, 3);
CREATE TABLE privacy (
    user_id TEXT NOT NULL PRIMARY KEY,
    presence TEXT NOT NULL,
    offers TEXT NOT NULL,
    contacts TEXT NOT NULL,
    blocked TEXT NOT NULL
);
INSERT INTO privacy VALUES ('alice', 'contacts', 'public', 'bob
straße
', 'mallory
');
