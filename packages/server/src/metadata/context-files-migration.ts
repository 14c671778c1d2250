/** Files of build contexts, and the objects they lie in; an object without files is a manifest. */
export const CONTEXT_FILES_MIGRATION = `
  CREATE TABLE context_objects (
    number INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    object_key TEXT NOT NULL UNIQUE,
    size_bytes INTEGER NOT NULL,
    used_at INTEGER NOT NULL
  );
  CREATE INDEX context_objects_by_use ON context_objects (used_at);

  CREATE TABLE context_files (
    namespace TEXT NOT NULL,
    digest BLOB NOT NULL,
    object INTEGER NOT NULL REFERENCES context_objects (number),
    file_offset INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (namespace, digest)
  ) WITHOUT ROWID;
  CREATE INDEX context_files_by_object ON context_files (object);
`;
