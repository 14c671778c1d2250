import {
  DecantError,
  fromHex,
  parseImageId,
  type BuildId,
  type ChunkId,
  type ChunkIndex,
  type ChunkLocation,
  type ClaimedJob,
  type ImageId,
  type ImageName,
  type Namespace,
} from '@decant/core';

import { SqliteContextFiles } from './sqlite-context-files.ts';
import { SqliteImageBuilds } from './sqlite-image-builds.ts';
import { SqliteJobs } from './sqlite-jobs.ts';
import { buildOf, credentialOf, imageOf, keyOf, locationOf, nameOf } from './sqlite-rows.ts';
import { SqliteSnapshots } from './sqlite-snapshots.ts';
import { NOW, SqliteDatabase } from './sqlite.ts';
import {
  INGEST_JOB,
  type AdmissionCommit,
  type BuildProblem,
  type BuildRow,
  type BuildStatus,
  type ImageRow,
  type KeyRow,
  type MetadataStore,
  type NameRow,
  type RegistryCredentialRow,
} from './store.ts';

/** Opens the metadata store in one SQLite file. Several processes may have it open at once. */
export async function openSqliteMetadata(path: string): Promise<MetadataStore> {
  return new SqliteMetadata(await SqliteDatabase.open(path));
}

class SqliteMetadata implements MetadataStore {
  readonly #db: SqliteDatabase;
  readonly #jobs: SqliteJobs;
  readonly imageBuilds: SqliteImageBuilds;
  readonly snapshots: SqliteSnapshots;
  readonly contextFiles: SqliteContextFiles;

  constructor(db: SqliteDatabase) {
    this.#db = db;
    this.#jobs = new SqliteJobs(db);
    this.imageBuilds = new SqliteImageBuilds(db);
    this.snapshots = new SqliteSnapshots(db);
    this.contextFiles = new SqliteContextFiles(db);
  }

  enqueue(kind: string, key: string, payload: unknown): Promise<string> {
    return this.#jobs.enqueue(kind, key, payload);
  }

  claim(kinds: readonly string[], leaseMs: number): Promise<ClaimedJob | undefined> {
    return this.#jobs.claim(kinds, leaseMs);
  }

  renew(job: ClaimedJob, leaseMs: number): Promise<boolean> {
    return this.#jobs.renew(job, leaseMs);
  }

  finish(job: ClaimedJob): Promise<boolean> {
    return this.#jobs.finish(job);
  }

  release(job: ClaimedJob, delayMs: number): Promise<boolean> {
    return this.#jobs.release(job, delayMs);
  }

  async setting(name: string, make: () => string): Promise<string> {
    const existing = this.#db.get('SELECT value FROM settings WHERE name = ?', name);
    if (existing !== undefined) return String(existing['value']);
    this.#db.run('INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING', name, make());
    return String(this.#db.get('SELECT value FROM settings WHERE name = ?', name)?.['value']);
  }

  async ensureNamespace(namespace: Namespace): Promise<void> {
    this.#db.run(
      `INSERT INTO namespaces (name, created_at) VALUES (?, ${NOW}) ON CONFLICT (name) DO NOTHING`,
      namespace,
    );
  }

  async createKey(id: string, namespace: Namespace, secretHash: string): Promise<KeyRow> {
    await this.ensureNamespace(namespace);
    const row = this.#db.get(
      `INSERT INTO api_keys (id, namespace, secret_hash, created_at) VALUES (?, ?, ?, ${NOW}) RETURNING *`,
      id,
      namespace,
      secretHash,
    );
    return keyOf(row!);
  }

  async findKey(id: string): Promise<(KeyRow & { secretHash: string }) | undefined> {
    const row = this.#db.get('SELECT * FROM api_keys WHERE id = ?', id);
    return row === undefined ? undefined : { ...keyOf(row), secretHash: String(row['secret_hash']) };
  }

  async listKeys(): Promise<readonly KeyRow[]> {
    return this.#db.all('SELECT * FROM api_keys ORDER BY created_at, id').map(keyOf);
  }

  async revokeKey(id: string): Promise<KeyRow | undefined> {
    const row = this.#db.get(
      `UPDATE api_keys SET revoked_at = coalesce(revoked_at, ${NOW}) WHERE id = ? RETURNING *`,
      id,
    );
    return row === undefined ? undefined : keyOf(row);
  }

  async createRegistryCredential(
    credential: Parameters<MetadataStore['createRegistryCredential']>[0],
  ): Promise<RegistryCredentialRow> {
    const { id, namespace, keyId, secretHash, lifeMs } = credential;
    return this.#db.transaction(() => {
      this.#db.run(`DELETE FROM registry_credentials WHERE expires_at <= ${NOW}`);
      const row = this.#db.get(
        `INSERT INTO registry_credentials (id, namespace, key_id, secret_hash, expires_at)
         VALUES (?, ?, ?, ?, ${NOW} + ?) RETURNING *`,
        id,
        namespace,
        keyId,
        secretHash,
        lifeMs,
      );
      return credentialOf(row!);
    });
  }

  async findRegistryCredential(id: string): Promise<RegistryCredentialRow | undefined> {
    const row = this.#db.get(
      `SELECT registry_credentials.* FROM registry_credentials LEFT JOIN api_keys ON api_keys.id = key_id
       WHERE registry_credentials.id = ? AND expires_at > ${NOW} AND revoked_at IS NULL`,
      id,
    );
    return row === undefined ? undefined : credentialOf(row);
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

  async findImage(namespace: Namespace, id: ImageId): Promise<ImageRow | undefined> {
    const row = this.#db.get('SELECT * FROM images WHERE namespace = ? AND id = ?', namespace, id);
    return row === undefined ? undefined : imageOf(row);
  }

  async findName(namespace: Namespace, { name, tag }: ImageName): Promise<NameRow | undefined> {
    const row = this.#db.get('SELECT * FROM names WHERE namespace = ? AND name = ? AND tag = ?', namespace, name, tag);
    return row === undefined ? undefined : nameOf(row);
  }

  async listNames(
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

  async setName(namespace: Namespace, row: Omit<NameRow, 'updatedAt'>): Promise<NameRow> {
    return this.#db.transaction(() => this.#setNameInside(namespace, row));
  }

  #setNameInside(namespace: Namespace, row: Omit<NameRow, 'updatedAt'>): NameRow {
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

  async removeName(namespace: Namespace, name: ImageName): Promise<boolean> {
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

  async nameHistory(namespace: Namespace, { name, tag }: ImageName) {
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

  async createBuild(
    build: Pick<BuildRow, 'id' | 'namespace' | 'snapshotId' | 'name' | 'tag' | 'format' | 'request'>,
  ): Promise<BuildRow> {
    await this.ensureNamespace(build.namespace);
    const row = this.#db.get(
      `INSERT INTO builds (id, namespace, snapshot_id, name, tag, format, status, request, created_at, updated_at)
       VALUES (?, ?, ?, ?, ?, ?, 'prepared', ?, ${NOW}, ${NOW}) RETURNING *`,
      build.id,
      build.namespace,
      build.snapshotId,
      build.name,
      build.tag,
      build.format,
      JSON.stringify(build.request),
    );
    return buildOf(row!);
  }

  async findBuild(namespace: Namespace, id: string): Promise<BuildRow | undefined> {
    const row = this.#db.get('SELECT * FROM builds WHERE namespace = ? AND id = ?', namespace, id);
    return row === undefined ? undefined : buildOf(row);
  }

  async beginIngest(namespace: Namespace, id: BuildId, completion: unknown): Promise<BuildRow> {
    return this.#db.transaction(() => {
      const moved = this.#db.run(
        `UPDATE builds SET status = 'ingesting', completion = ?, updated_at = ${NOW}
         WHERE namespace = ? AND id = ? AND status = 'prepared'`,
        JSON.stringify(completion),
        namespace,
        id,
      );
      if (moved > 0) this.#jobs.enqueueInside(INGEST_JOB, id, { namespace, buildId: id });
      const row = this.#db.get('SELECT * FROM builds WHERE namespace = ? AND id = ?', namespace, id);
      if (row === undefined) throw new DecantError('NOT_FOUND', `There is no build ${id}.`);
      return buildOf(row);
    });
  }

  async setProgress(id: BuildId, bytes: number, totalBytes: number): Promise<void> {
    this.#db.run(
      `UPDATE builds SET progress_bytes = ?, progress_total = ?, updated_at = ${NOW} WHERE id = ? AND status = 'ingesting'`,
      bytes,
      totalBytes,
      id,
    );
  }

  async commitAdmission(job: ClaimedJob, commit: AdmissionCommit): Promise<void> {
    this.#db.transaction(() => {
      const { build, image } = commit;
      this.#endBuild(job, build, 'completed', { template: commit.template });
      for (const pack of commit.packs) {
        this.#db.run(
          `INSERT INTO packs (namespace, object_key, size_bytes) VALUES (?, ?, ?) ON CONFLICT (namespace, object_key) DO NOTHING`,
          build.namespace,
          pack.key,
          pack.sizeBytes,
        );
        const number = Number(
          this.#db.get('SELECT number FROM packs WHERE namespace = ? AND object_key = ?', build.namespace, pack.key)?.[
            'number'
          ],
        );
        for (const chunk of pack.chunks) {
          this.#db.run(
            `INSERT INTO chunks (namespace, id, pack, frame_offset, stored_bytes, plain_bytes, encoding)
             VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (namespace, id) DO NOTHING`,
            build.namespace,
            fromHex(chunk.id),
            number,
            chunk.offset,
            chunk.storedBytes,
            chunk.plainBytes,
            chunk.encoding,
          );
        }
      }
      insertImage(this.#db, build.namespace, image);
      this.#setNameInside(build.namespace, {
        name: build.name,
        tag: build.tag,
        imageId: parseImageId(image.record.id),
        configDigest: commit.configDigest,
        diskBytes: commit.diskBytes,
      });
    });
  }

  async failBuild(job: ClaimedJob, build: BuildRow, problem: BuildProblem): Promise<void> {
    this.#db.transaction(() => this.#endBuild(job, build, 'failed', { problem }));
  }

  #endBuild(
    job: ClaimedJob,
    build: BuildRow,
    status: BuildStatus,
    facts: { template?: unknown; problem?: unknown },
  ): void {
    const ended = this.#db.run(
      `UPDATE builds SET status = ?, template = ?, problem = ?, updated_at = ${NOW} WHERE id = ? AND status = 'ingesting'`,
      status,
      facts.template === undefined ? null : JSON.stringify(facts.template),
      facts.problem === undefined ? null : JSON.stringify(facts.problem),
      build.id,
    );
    if (ended === 0 || !this.#jobs.finishInside(job)) {
      throw new DecantError('INGEST_STATE', `The admission of build ${build.id} was taken over by another worker.`);
    }
  }

  async expireBuilds(olderThanMs: number, problem: BuildProblem): Promise<readonly BuildRow[]> {
    const due = `staging_removed = 0 AND updated_at < ${NOW} - ?`;
    // Most often there is nothing to do: look before taking the lock that writers wait for.
    const some = this.#db.get(`SELECT 1 FROM builds WHERE status = 'prepared' AND ${due} LIMIT 1`, olderThanMs);
    if (some !== undefined) {
      this.#db.run(
        `UPDATE builds SET status = 'failed', problem = ?, updated_at = ${NOW} WHERE status = 'prepared' AND ${due}`,
        JSON.stringify(problem),
        olderThanMs,
      );
    }
    return this.#db
      .all(`SELECT * FROM builds WHERE status IN ('completed', 'failed') AND ${due} LIMIT 100`, olderThanMs)
      .map(buildOf);
  }

  async stagingRemoved(id: BuildId): Promise<void> {
    this.#db.run('UPDATE builds SET staging_removed = 1 WHERE id = ?', id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#db.close();
  }
}

function insertImage(db: SqliteDatabase, namespace: Namespace, { record, configDigest }: ImageRow): void {
  db.run(
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
