import { DecantError, parseImageId, parseNamespace, type Namespace } from '@decant/core';

import type { SnapshotRow, SnapshotStore } from './snapshot-store.ts';
import { NOW, type Row, type SqliteDatabase } from './sqlite.ts';

/** What ttl retires is not written: it follows from the times. */
const COLUMNS = `seq, id, namespace, image_id, image_name, architecture, byte_size, tags, ttl, created_at, updated_at,
  CASE WHEN retired_at IS NOT NULL THEN retired_at
       WHEN ttl IS NOT NULL AND created_at + ttl * 1000 <= ${NOW} THEN created_at + ttl * 1000 END AS retired_at`;

/** The snapshot registry on SQLite. */
export class SqliteSnapshots implements SnapshotStore {
  readonly #db: SqliteDatabase;

  constructor(db: SqliteDatabase) {
    this.#db = db;
  }

  async create(snapshot: Parameters<SnapshotStore['create']>[0]) {
    return this.#db.transaction(() => {
      const { namespace, imageId } = snapshot;
      if (this.#db.get('SELECT 1 FROM images WHERE namespace = ? AND id = ?', namespace, imageId) === undefined) {
        throw new DecantError('NOT_FOUND', `There is no image ${imageId}.`);
      }
      const row = this.#db.get(
        `INSERT INTO snapshots (id, namespace, image_id, image_name, architecture, byte_size, tags, ttl, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ${NOW}, ${NOW}) RETURNING ${COLUMNS}`,
        snapshot.id,
        namespace,
        imageId,
        snapshot.imageName,
        snapshot.architecture,
        snapshot.byteSize,
        JSON.stringify(snapshot.tags),
        snapshot.ttl,
      );
      return snapshotOf(row!);
    });
  }

  async find(namespace: Namespace, id: string) {
    return this.#find(namespace, id);
  }

  #find(namespace: Namespace, id: string) {
    const row = this.#db.get(`SELECT ${COLUMNS} FROM snapshots WHERE namespace = ? AND id = ?`, namespace, id);
    return row === undefined ? undefined : snapshotOf(row);
  }

  async findByAlias(namespace: Namespace, alias: string) {
    const row = this.#db.get(
      'SELECT snapshot_id FROM snapshot_aliases WHERE namespace = ? AND alias = ?',
      namespace,
      alias,
    );
    return row === undefined ? undefined : this.#find(namespace, String(row['snapshot_id']));
  }

  async list(namespace: Namespace, options: Parameters<SnapshotStore['list']>[1]) {
    let before = Number.MAX_SAFE_INTEGER;
    if (options.after !== undefined) {
      const last = this.#find(namespace, options.after);
      if (last === undefined) return undefined;
      before = last.seq;
    }
    const rows = this.#db.all(
      `SELECT * FROM (SELECT ${COLUMNS} FROM snapshots WHERE namespace = ? AND seq < ?) AS s
       WHERE (? = 0 OR s.retired_at IS NULL)
         AND NOT EXISTS (
           SELECT 1 FROM json_each(?) AS wanted
           WHERE NOT EXISTS (
             SELECT 1 FROM json_each(s.tags) AS had WHERE had.key = wanted.key AND had.value = wanted.value))
       ORDER BY s.seq DESC LIMIT ?`,
      namespace,
      before,
      options.excludeRetired === true ? 1 : 0,
      JSON.stringify(options.tags ?? {}),
      options.limit,
    );
    return rows.map(snapshotOf);
  }

  async retire(namespace: Namespace, id: string) {
    return this.#db.transaction(() => {
      const before = this.#find(namespace, id);
      if (before === undefined || before.retiredAt !== null) return before;
      this.#db.run(
        `UPDATE snapshots SET retired_at = ${NOW}, updated_at = ${NOW} WHERE namespace = ? AND id = ?`,
        namespace,
        id,
      );
      return this.#find(namespace, id);
    });
  }

  async aliases(namespace: Namespace, id: string) {
    return this.#db
      .all(
        'SELECT snapshot_id, alias, created_at FROM snapshot_aliases WHERE namespace = ? AND snapshot_id = ? ORDER BY alias',
        namespace,
        id,
      )
      .map((row) => ({
        snapshotId: String(row['snapshot_id']),
        alias: String(row['alias']),
        createdAt: Number(row['created_at']),
      }));
  }

  async setAlias(namespace: Namespace, id: string, alias: string) {
    return (
      this.#db.run(
        `INSERT INTO snapshot_aliases (namespace, alias, snapshot_id, created_at)
         SELECT namespace, ?, id, ${NOW} FROM snapshots WHERE namespace = ? AND id = ?
         ON CONFLICT (namespace, alias) DO UPDATE SET snapshot_id = excluded.snapshot_id, created_at = excluded.created_at`,
        alias,
        namespace,
        id,
      ) > 0
    );
  }

  async removeAlias(namespace: Namespace, alias: string) {
    return this.#db.run('DELETE FROM snapshot_aliases WHERE namespace = ? AND alias = ?', namespace, alias) > 0;
  }
}

function snapshotOf(row: Row): SnapshotRow {
  const number = (name: string) => (row[name] === null ? null : Number(row[name]));
  const architecture = row['architecture'];
  return {
    seq: Number(row['seq']),
    id: String(row['id']),
    namespace: parseNamespace(String(row['namespace'])),
    imageId: parseImageId(String(row['image_id'])),
    imageName: String(row['image_name']),
    architecture: architecture === 'amd64' || architecture === 'arm64' ? architecture : null,
    byteSize: Number(row['byte_size']),
    tags: JSON.parse(String(row['tags'])) as Record<string, string>,
    ttl: number('ttl'),
    createdAt: Number(row['created_at']),
    retiredAt: number('retired_at'),
    updatedAt: Number(row['updated_at']),
  };
}
