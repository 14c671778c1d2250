import { DecantError, parseImageId, type ImageId, type ImageName, type Namespace } from '@decant/core';

import { imageOf, nameOf } from './sqlite-rows.ts';
import { NOW, type SqliteDatabase } from './sqlite.ts';
import type { ImageRow, NameRow, NameStore } from './store.ts';

/** Names of images and what they pointed at, on SQLite. */
export class SqliteNames implements NameStore {
  readonly #db: SqliteDatabase;

  constructor(db: SqliteDatabase) {
    this.#db = db;
  }

  async find(namespace: Namespace, { name, tag }: ImageName): Promise<NameRow | undefined> {
    const row = this.#db.get('SELECT * FROM names WHERE namespace = ? AND name = ? AND tag = ?', namespace, name, tag);
    return row === undefined ? undefined : nameOf(row);
  }

  async list(
    namespace: Namespace,
    { limit, after }: { limit: number; after?: ImageName | undefined },
  ): Promise<readonly (NameRow & { image: ImageRow })[]> {
    const rows = this.#db.all(
      `SELECT images.*, names.name, names.tag, names.image_id, names.config_digest AS name_config, names.disk_bytes, names.updated_at
       FROM names JOIN images ON images.namespace = names.namespace AND images.id = names.image_id
       WHERE names.namespace = ? AND (names.name, names.tag) > (?, ?)
       ORDER BY names.name, names.tag LIMIT ?`,
      namespace,
      after?.name ?? '',
      after?.tag ?? '',
      limit,
    );
    return rows.map((row) => ({
      ...nameOf({ ...row, config_digest: row['name_config'] ?? null }),
      image: imageOf(row),
    }));
  }

  async set(namespace: Namespace, row: Omit<NameRow, 'updatedAt'>): Promise<NameRow> {
    return this.#db.transaction(() => this.setInside(namespace, row));
  }

  /** As `set`, inside a transaction that is already open. */
  setInside(namespace: Namespace, row: Omit<NameRow, 'updatedAt'>): NameRow {
    if (this.#db.get('SELECT 1 FROM images WHERE namespace = ? AND id = ?', namespace, row.imageId) === undefined) {
      throw new DecantError('NOT_FOUND', `There is no image ${row.imageId}.`);
    }
    const before = this.#db.get(
      'SELECT * FROM names WHERE namespace = ? AND name = ? AND tag = ?',
      namespace,
      row.name,
      row.tag,
    );
    if (before?.['image_id'] !== row.imageId) this.#addVersion(namespace, row, row.imageId);
    const after = this.#db.get(
      `INSERT INTO names (namespace, name, tag, image_id, config_digest, disk_bytes, updated_at) VALUES (?, ?, ?, ?, ?, ?, ${NOW})
       ON CONFLICT (namespace, name, tag) DO UPDATE SET image_id = excluded.image_id, config_digest = excluded.config_digest,
         disk_bytes = excluded.disk_bytes, updated_at = excluded.updated_at
       RETURNING *`,
      namespace,
      row.name,
      row.tag,
      row.imageId,
      row.configDigest,
      row.diskBytes,
    );
    return nameOf(after!);
  }

  #addVersion(namespace: Namespace, { name, tag }: ImageName, imageId: ImageId | null): void {
    this.#db.run(
      `INSERT INTO name_versions (namespace, name, tag, version, image_id, created_at)
       SELECT ?1, ?2, ?3, coalesce(max(version), 0) + 1, ?4, ${NOW} FROM name_versions
       WHERE namespace = ?1 AND name = ?2 AND tag = ?3`,
      namespace,
      name,
      tag,
      imageId,
    );
  }

  async remove(namespace: Namespace, name: ImageName): Promise<boolean> {
    return this.#db.transaction(() => {
      const removed = this.#db.run(
        'DELETE FROM names WHERE namespace = ? AND name = ? AND tag = ?',
        namespace,
        name.name,
        name.tag,
      );
      if (removed > 0) this.#addVersion(namespace, name, null);
      return removed > 0;
    });
  }

  async history(namespace: Namespace, { name, tag }: ImageName) {
    return this.#db
      .all(
        'SELECT * FROM name_versions WHERE namespace = ? AND name = ? AND tag = ? ORDER BY version DESC LIMIT 1000',
        namespace,
        name,
        tag,
      )
      .map((row) => ({
        version: Number(row['version']),
        imageId: row['image_id'] === null ? null : parseImageId(String(row['image_id'])),
        createdAt: Number(row['created_at']),
      }));
  }
}
