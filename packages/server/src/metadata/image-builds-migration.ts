/** Builds of the image-builder with their logs, and the snapshot registry. */
export const IMAGE_BUILDS_MIGRATION = `
  CREATE TABLE image_builds (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    trust TEXT NOT NULL,
    host TEXT NOT NULL,
    idempotency_key TEXT,
    digest TEXT NOT NULL,
    name TEXT NOT NULL,
    tag TEXT NOT NULL,
    cache_key TEXT NOT NULL,
    fields TEXT NOT NULL,
    context_bytes INTEGER NOT NULL,
    status TEXT NOT NULL,
    image_digest TEXT,
    architecture TEXT,
    engine TEXT,
    problem TEXT,
    attempt INTEGER NOT NULL DEFAULT 0,
    token INTEGER NOT NULL DEFAULT 0,
    lease_until INTEGER,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    log_lines INTEGER NOT NULL DEFAULT 0,
    log_bytes INTEGER NOT NULL DEFAULT 0,
    context_removed INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    UNIQUE (namespace, idempotency_key)
  );
  CREATE INDEX image_builds_open ON image_builds (status, seq) WHERE status IN ('queued', 'running');
  CREATE INDEX image_builds_of_namespace ON image_builds (namespace, seq);
  CREATE INDEX image_builds_of_image ON image_builds (namespace, image_digest) WHERE image_digest IS NOT NULL;

  CREATE TABLE image_build_logs (
    build INTEGER NOT NULL REFERENCES image_builds (seq) ON DELETE CASCADE,
    first_line INTEGER NOT NULL,
    lines INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (build, first_line)
  ) WITHOUT ROWID;

  CREATE TABLE snapshots (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    image_id TEXT NOT NULL,
    image_name TEXT NOT NULL,
    architecture TEXT,
    byte_size INTEGER NOT NULL,
    tags TEXT NOT NULL,
    ttl INTEGER,
    created_at INTEGER NOT NULL,
    retired_at INTEGER,
    updated_at INTEGER NOT NULL,
    FOREIGN KEY (namespace, image_id) REFERENCES images (namespace, id)
  );
  CREATE INDEX snapshots_of_namespace ON snapshots (namespace, seq);

  CREATE TABLE snapshot_aliases (
    namespace TEXT NOT NULL,
    alias TEXT NOT NULL,
    snapshot_id TEXT NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, alias)
  ) WITHOUT ROWID;
  CREATE INDEX snapshot_aliases_of ON snapshot_aliases (snapshot_id);
`;
