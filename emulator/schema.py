"""The tables. Every row carries `seq`, its place in the order of arrival over the whole workspace.

Metric points are plain rows without a unique key: what arrives twice is there twice. A NULL value is
not-a-number, which SQLite cannot hold.
"""

SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS experiments (
    experiment_id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, lifecycle_stage TEXT NOT NULL,
    description TEXT, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL,
    arrived REAL NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS experiment_tags (
    experiment_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (experiment_id, key));
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY, run_uuid TEXT NOT NULL, run_number INTEGER NOT NULL,
    experiment_id TEXT NOT NULL, name TEXT NOT NULL, user_id TEXT NOT NULL, status TEXT NOT NULL,
    start_ms INTEGER, end_ms INTEGER, lifecycle_stage TEXT NOT NULL,
    parent_run_id TEXT, root_run_id TEXT NOT NULL, created_by TEXT NOT NULL, created_ms INTEGER NOT NULL,
    document TEXT NOT NULL, arrived REAL NOT NULL, seq INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS runs_by_experiment ON runs (experiment_id, start_ms);
CREATE INDEX IF NOT EXISTS runs_by_parent ON runs (parent_run_id);
CREATE TABLE IF NOT EXISTS params (
    run_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (run_id, key));
CREATE TABLE IF NOT EXISTS tags (
    run_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (run_id, key));
CREATE TABLE IF NOT EXISTS properties (
    run_id TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (run_id, key));
CREATE TABLE IF NOT EXISTS metrics (
    seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL, key TEXT NOT NULL, value REAL,
    timestamp_ms INTEGER NOT NULL, step INTEGER NOT NULL, record TEXT);
CREATE INDEX IF NOT EXISTS metrics_by_run ON metrics (run_id, key, step, timestamp_ms, value);
CREATE TABLE IF NOT EXISTS late_metrics (seq INTEGER PRIMARY KEY, arrived REAL NOT NULL);
CREATE TABLE IF NOT EXISTS metric_names (
    run_id TEXT NOT NULL, key TEXT NOT NULL, rows INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (run_id, key));
CREATE TABLE IF NOT EXISTS status_changes (
    seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL, status TEXT NOT NULL, made_by TEXT NOT NULL,
    time TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS status_changes_by_run ON status_changes (run_id);
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL, name TEXT NOT NULL, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS inputs (
    seq INTEGER PRIMARY KEY, run_id TEXT NOT NULL, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS async_batches (
    tracking_id TEXT PRIMARY KEY, run_id TEXT NOT NULL, arrived REAL NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS artifacts (
    origin TEXT NOT NULL, container TEXT NOT NULL, path TEXT NOT NULL, etag TEXT NOT NULL,
    created TEXT NOT NULL, tags TEXT, datastore TEXT NOT NULL, relative_path TEXT NOT NULL,
    seq INTEGER NOT NULL, PRIMARY KEY (origin, container, path));
CREATE TABLE IF NOT EXISTS blobs (
    name TEXT PRIMARY KEY, file TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
    modified REAL NOT NULL, content_type TEXT NOT NULL, content_md5 TEXT, md5 TEXT, sha256 TEXT,
    metadata TEXT NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS blocks (
    name TEXT NOT NULL, block_id TEXT NOT NULL, file TEXT NOT NULL, size INTEGER NOT NULL,
    committed INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (name, block_id, committed));
CREATE TABLE IF NOT EXISTS models (
    name TEXT PRIMARY KEY, description TEXT NOT NULL, created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL, last_version INTEGER NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS model_versions (
    name TEXT NOT NULL, version INTEGER NOT NULL, source TEXT NOT NULL, run_id TEXT NOT NULL,
    run_link TEXT NOT NULL, description TEXT NOT NULL, stage TEXT NOT NULL, status TEXT NOT NULL,
    user_id TEXT NOT NULL, created_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL,
    seq INTEGER NOT NULL, PRIMARY KEY (name, version));
CREATE TABLE IF NOT EXISTS model_tags (
    name TEXT NOT NULL, version INTEGER NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    seq INTEGER NOT NULL, PRIMARY KEY (name, version, key));
CREATE TABLE IF NOT EXISTS aliases (
    name TEXT NOT NULL, alias TEXT NOT NULL, version INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (name, alias));
"""

TABLES_WITH_SEQ = (
    "experiments",
    "experiment_tags",
    "runs",
    "params",
    "tags",
    "properties",
    "metrics",
    "metric_names",
    "status_changes",
    "events",
    "inputs",
    "async_batches",
    "artifacts",
    "blobs",
    "blocks",
    "models",
    "model_versions",
    "model_tags",
    "aliases",
)
