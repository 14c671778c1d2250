import { CONTEXT_FILES_MIGRATION } from './context-files-migration.ts';
import { IMAGE_BUILDS_MIGRATION } from './image-builds-migration.ts';

/**
 * The metadata schema, as numbered steps. A step that has been released is never edited: a change is a new
 * step. Times are milliseconds since 1970 on the database's clock; digests are hexadecimal text, chunk ids
 * are 32-byte blobs.
 */
export const SQLITE_MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
  ) WITHOUT ROWID;

  CREATE TABLE namespaces (
    name TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL
  ) WITHOUT ROWID;

  CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    secret_hash TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
  ) WITHOUT ROWID;

  CREATE TABLE images (
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    id TEXT NOT NULL,
    format TEXT NOT NULL,
    filesystem TEXT NOT NULL,
    layout TEXT NOT NULL,
    architecture TEXT,
    virtual_bytes INTEGER NOT NULL,
    content_bytes INTEGER NOT NULL,
    chunks INTEGER,
    stored_bytes INTEGER NOT NULL,
    config_digest TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
  ) WITHOUT ROWID;

  CREATE TABLE packs (
    number INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    object_key TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    UNIQUE (namespace, object_key)
  );

  CREATE TABLE chunks (
    namespace TEXT NOT NULL,
    id BLOB NOT NULL,
    pack INTEGER NOT NULL REFERENCES packs (number),
    frame_offset INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    plain_bytes INTEGER NOT NULL,
    encoding TEXT NOT NULL,
    PRIMARY KEY (namespace, id)
  ) WITHOUT ROWID;

  CREATE TABLE names (
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    name TEXT NOT NULL,
    tag TEXT NOT NULL,
    image_id TEXT NOT NULL,
    config_digest TEXT,
    disk_bytes INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, name, tag),
    FOREIGN KEY (namespace, image_id) REFERENCES images (namespace, id)
  ) WITHOUT ROWID;

  CREATE TABLE name_versions (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    tag TEXT NOT NULL,
    version INTEGER NOT NULL,
    image_id TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, name, tag, version)
  ) WITHOUT ROWID;

  CREATE TABLE builds (
    id TEXT PRIMARY KEY,
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    snapshot_id TEXT NOT NULL,
    name TEXT NOT NULL,
    tag TEXT NOT NULL,
    format TEXT NOT NULL,
    status TEXT NOT NULL,
    request TEXT NOT NULL,
    completion TEXT,
    template TEXT,
    problem TEXT,
    staging_removed INTEGER NOT NULL DEFAULT 0,
    progress_bytes INTEGER NOT NULL DEFAULT 0,
    progress_total INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE INDEX builds_with_staging ON builds (staging_removed, updated_at);

  CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    job_key TEXT NOT NULL,
    payload TEXT NOT NULL,
    available_at INTEGER NOT NULL,
    lease_until INTEGER,
    token INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    UNIQUE (kind, job_key)
  ) WITHOUT ROWID;
  `,
  `
  CREATE TABLE registry_credentials (
    id TEXT PRIMARY KEY,
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    key_id TEXT REFERENCES api_keys (id),
    secret_hash TEXT NOT NULL,
    expires_at INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE INDEX registry_credentials_by_end ON registry_credentials (expires_at);
  `,
  IMAGE_BUILDS_MIGRATION,
  CONTEXT_FILES_MIGRATION,
  `
  CREATE TABLE damaged_chunks (
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    id BLOB NOT NULL,
    PRIMARY KEY (namespace, id)
  ) WITHOUT ROWID;
  `,
];
