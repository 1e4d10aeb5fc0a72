-- What version 1 of the schema wrote: two claims, one of them refunded, and a message that waits.
BEGIN TRANSACTION;
CREATE TABLE contents (
        row_id INTEGER PRIMARY KEY REFERENCES messages ON DELETE CASCADE,
        body TEXT NOT NULL,
        body_md5 TEXT NOT NULL,
        attributes TEXT NOT NULL
    );
INSERT INTO "contents" VALUES(1,'{"receipt": "AAAA", "user_id": 7, "post_queue": "ResultsSQS"}','499f56ae5a91fc60f9db1e468ee16c23','{"submission_id": "s-7"}');
CREATE TABLE ledger (
        transaction_id TEXT PRIMARY KEY NOT NULL,
        submission_id TEXT NOT NULL,
        message_id TEXT NOT NULL,
        user_id INTEGER NOT NULL,
        receipt_sha256 TEXT NOT NULL,
        product_id TEXT,
        original_transaction_id TEXT,
        environment TEXT NOT NULL,
        source_queue TEXT NOT NULL,
        post_queue TEXT NOT NULL,
        claimed_at_seconds REAL NOT NULL,
        refunded_at_seconds REAL,
        schema_version INTEGER NOT NULL
    ) WITHOUT ROWID
    ;
INSERT INTO "ledger" VALUES('1000000046178817','s-1','m-1',42,'abababababababababababababababababababababababababababababababab','com.example.coins.100',NULL,'Production','ReceiptsSQS','ResultsSQS',1700000000.125,NULL,1);
INSERT INTO "ledger" VALUES('1000000046178818','s-1','m-1',42,'abababababababababababababababababababababababababababababababab','com.example.coins.100',NULL,'Production','ReceiptsSQS','ResultsSQS',1700000000.125,1700000100.0,1);
CREATE TABLE messages (
        row_id INTEGER PRIMARY KEY,
        queue_id INTEGER NOT NULL REFERENCES queues,
        message_id TEXT NOT NULL,
        sent_at_seconds REAL NOT NULL,
        visible_at_seconds REAL NOT NULL,
        received_at_seconds REAL,
        receive_count INTEGER NOT NULL DEFAULT 0,
        receipt TEXT
    );
INSERT INTO "messages" VALUES(1,1,'5d330176-8361-4428-a129-8ae2b7a87ef8',1700000000.0,1700000000.0,NULL,0,NULL);
CREATE TABLE queues (
        queue_id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        dead_letter_queue_id INTEGER REFERENCES queues,
        max_receive_count INTEGER
    );
INSERT INTO "queues" VALUES(1,'ReceiptsSQS',2,20);
INSERT INTO "queues" VALUES(2,'ReceiptsSQSDLQ',NULL,NULL);
INSERT INTO "queues" VALUES(3,'ResultsSQS',NULL,NULL);
CREATE INDEX messages_by_visibility ON messages (queue_id, visible_at_seconds);
COMMIT;
PRAGMA application_id = 1382236515;
PRAGMA user_version = 1;
