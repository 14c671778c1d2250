import { fromHex, type Namespace } from '@decant/core';

import type { ContextFileLocation, ContextFileStore, ContextObject } from './context-file-store.ts';
import { NOW, type SqliteDatabase } from './sqlite.ts';

/** Objects used within this time are not marked as used again: most look-ups write nothing. Milliseconds. */
const USED_GRAIN_MS = 60 * 60 * 1000;

/** Files of build contexts on SQLite. */
export class SqliteContextFiles implements ContextFileStore {
  readonly #db: SqliteDatabase;

  constructor(db: SqliteDatabase) {
    this.#db = db;
  }

  async locate(namespace: Namespace, digests: readonly string[]): Promise<ReadonlyMap<string, ContextFileLocation>> {
    const found = new Map<string, ContextFileLocation>();
    const stale = new Set<number>();
    this.#db.snapshot(() => {
      for (const digest of digests) {
        const row = this.#db.get(
          `SELECT number, object_key, o.size_bytes AS object_bytes, file_offset, f.size_bytes AS file_bytes,
             used_at < ${NOW} - ? AS stale
           FROM context_files f JOIN context_objects o ON o.number = f.object
           WHERE f.namespace = ? AND digest = ?`,
          USED_GRAIN_MS,
          namespace,
          fromHex(digest),
        );
        if (row === undefined) continue;
        if (row['stale'] === 1) stale.add(Number(row['number']));
        found.set(digest, {
          objectKey: String(row['object_key']),
          objectBytes: Number(row['object_bytes']),
          offset: Number(row['file_offset']),
          sizeBytes: Number(row['file_bytes']),
        });
      }
    });
    if (stale.size > 0) {
      this.#db.run(
        `UPDATE context_objects SET used_at = ${NOW} WHERE number IN (SELECT value FROM json_each(?))`,
        JSON.stringify([...stale]),
      );
    }
    return found;
  }

  async add(namespace: Namespace, { key, sizeBytes, files }: ContextObject): Promise<void> {
    this.#db.transaction(() => {
      this.#db.run(
        `INSERT INTO namespaces (name, created_at) VALUES (?, ${NOW}) ON CONFLICT (name) DO NOTHING`,
        namespace,
      );
      const row = this.#db.get(
        `INSERT INTO context_objects (namespace, object_key, size_bytes, used_at) VALUES (?, ?, ?, ${NOW})
         ON CONFLICT (object_key) DO UPDATE SET used_at = ${NOW} RETURNING number`,
        namespace,
        key,
        sizeBytes,
      );
      for (const file of files) {
        this.#db.run(
          `INSERT INTO context_files (namespace, digest, object, file_offset, size_bytes) VALUES (?, ?, ?, ?, ?)
           ON CONFLICT (namespace, digest) DO NOTHING`,
          namespace,
          fromHex(file.digest),
          Number(row!['number']),
          file.offset,
          file.sizeBytes,
        );
      }
    });
  }

  async expire(olderThanMs: number): Promise<readonly string[]> {
    return this.#db.transaction(() => {
      const rows = this.#db.all(
        `SELECT number, object_key FROM context_objects WHERE used_at < ${NOW} - ? ORDER BY used_at LIMIT 100`,
        olderThanMs,
      );
      for (const { number } of rows) {
        this.#db.run('DELETE FROM context_files WHERE object = ?', number!);
        this.#db.run('DELETE FROM context_objects WHERE number = ?', number!);
      }
      return rows.map((row) => String(row['object_key']));
    });
  }
}
