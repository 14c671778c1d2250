import {
  fromHex,
  parseChunkId,
  parseImageId,
  toHex,
  type ChunkId,
  type ChunkIndex,
  type ChunkLocation,
  type ImageId,
  type Namespace,
} from '@decant/core';

import { imageOf, locationOf } from './sqlite-rows.ts';
import { NOW, type SqliteDatabase } from './sqlite.ts';
import type { AdmittedPack, ImageRow, ImageStore } from './store.ts';

/** Images, and the packs that hold their chunks, on SQLite. */
export class SqliteImages implements ImageStore {
  readonly #db: SqliteDatabase;

  constructor(db: SqliteDatabase) {
    this.#db = db;
  }

  chunkIndex(namespace: Namespace): ChunkIndex {
    const locate = async (ids: readonly ChunkId[]): Promise<ReadonlyMap<ChunkId, ChunkLocation>> => {
      const found = new Map<ChunkId, ChunkLocation>();
      // One read transaction: without it every lookup would lock and unlock the file.
      this.#db.snapshot(() => {
        for (const id of ids) {
          const row = this.#db.get(
            `SELECT object_key, frame_offset, stored_bytes, plain_bytes, encoding
             FROM chunks JOIN packs ON packs.number = chunks.pack
             WHERE chunks.namespace = ? AND chunks.id = ?`,
            namespace,
            fromHex(id),
          );
          if (row !== undefined) found.set(id, locationOf(row));
        }
      });
      return found;
    };
    return { locate };
  }

  async find(namespace: Namespace, id: ImageId): Promise<ImageRow | undefined> {
    const row = this.#db.get('SELECT * FROM images WHERE namespace = ? AND id = ?', namespace, id);
    return row === undefined ? undefined : imageOf(row);
  }

  async listStreaming(
    namespace: Namespace,
    { limit, after = '' as ImageId }: { limit: number; after?: ImageId | undefined },
  ): Promise<readonly ImageId[]> {
    return this.#db
      .all(
        `SELECT id FROM images WHERE namespace = ? AND format = 'cas-streaming' AND id > ? ORDER BY id LIMIT ?`,
        namespace,
        after,
        limit,
      )
      .map((row) => parseImageId(String(row['id'])));
  }

  async markDamaged(namespace: Namespace, chunks: ReadonlyMap<ChunkId, ChunkLocation>): Promise<void> {
    this.#db.transaction(() => {
      for (const [id, { packKey, offset }] of chunks) {
        const forgotten = this.#db.run(
          `DELETE FROM chunks WHERE namespace = ? AND id = ? AND frame_offset = ?
             AND pack = (SELECT number FROM packs WHERE namespace = ? AND object_key = ?)`,
          namespace,
          fromHex(id),
          offset,
          namespace,
          packKey,
        );
        if (forgotten === 0) continue;
        this.#db.run(
          'INSERT INTO damaged_chunks (namespace, id) VALUES (?, ?) ON CONFLICT (namespace, id) DO NOTHING',
          namespace,
          fromHex(id),
        );
      }
    });
  }

  async hasDamage(namespace: Namespace): Promise<boolean> {
    const row = this.#db.get(
      `SELECT 1 FROM damaged_chunks AS damaged WHERE namespace = ? AND NOT EXISTS
         (SELECT 1 FROM chunks WHERE chunks.namespace = damaged.namespace AND chunks.id = damaged.id) LIMIT 1`,
      namespace,
    );
    return row !== undefined;
  }

  async replacedChunks(namespace: Namespace): Promise<readonly ChunkId[]> {
    return this.#db
      .all(
        `SELECT damaged.id FROM damaged_chunks AS damaged
         JOIN chunks ON chunks.namespace = damaged.namespace AND chunks.id = damaged.id
         WHERE damaged.namespace = ? LIMIT 1000`,
        namespace,
      )
      .map((row) => parseChunkId(toHex(row['id'] as Uint8Array)));
  }

  async settleReplaced(namespace: Namespace, ids: readonly ChunkId[]): Promise<void> {
    this.#db.transaction(() => {
      for (const id of ids) {
        this.#db.run('DELETE FROM damaged_chunks WHERE namespace = ? AND id = ?', namespace, fromHex(id));
      }
    });
  }

  /** Remembers where the chunks of a pack are, inside a transaction that is already open. */
  insertPackInside(namespace: Namespace, pack: AdmittedPack): void {
    this.#db.run(
      `INSERT INTO packs (namespace, object_key, size_bytes) VALUES (?, ?, ?) ON CONFLICT (namespace, object_key) DO NOTHING`,
      namespace,
      pack.key,
      pack.sizeBytes,
    );
    const row = this.#db.get('SELECT number FROM packs WHERE namespace = ? AND object_key = ?', namespace, pack.key);
    const number = Number(row?.['number']);
    for (const chunk of pack.chunks) {
      this.#db.run(
        `INSERT INTO chunks (namespace, id, pack, frame_offset, stored_bytes, plain_bytes, encoding)
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (namespace, id) DO NOTHING`,
        namespace,
        fromHex(chunk.id),
        number,
        chunk.offset,
        chunk.storedBytes,
        chunk.plainBytes,
        chunk.encoding,
      );
    }
  }

  /** Remembers an image that is not there yet, inside a transaction that is already open. */
  insertImageInside(namespace: Namespace, { record, configDigest }: ImageRow): void {
    this.#db.run(
      `INSERT INTO images (namespace, id, format, filesystem, layout, architecture, virtual_bytes, content_bytes, chunks,
         stored_bytes, config_digest, created_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ${NOW}) ON CONFLICT (namespace, id) DO NOTHING`,
      namespace,
      record.id,
      record.format,
      record.filesystem,
      record.layout,
      record.architecture,
      record.virtualBytes,
      record.contentBytes,
      record.chunks,
      record.storedBytes,
      configDigest,
    );
  }
}
