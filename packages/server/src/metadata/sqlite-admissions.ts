import { DecantError, parseImageId, type BuildId, type ClaimedJob, type Namespace } from '@decant/core';

import type { SqliteImages } from './sqlite-images.ts';
import type { SqliteJobs } from './sqlite-jobs.ts';
import type { SqliteKeys } from './sqlite-keys.ts';
import type { SqliteNames } from './sqlite-names.ts';
import { buildOf } from './sqlite-rows.ts';
import { NOW, type SqliteDatabase } from './sqlite.ts';
import {
  INGEST_JOB,
  type AdmissionCommit,
  type AdmissionStore,
  type BuildProblem,
  type BuildRow,
  type BuildStatus,
  type NewBuild,
} from './store.ts';

/** The other tables that an admission writes to, in one transaction with its own. */
interface AdmissionTables {
  readonly keys: SqliteKeys;
  readonly images: SqliteImages;
  readonly names: SqliteNames;
  readonly jobs: SqliteJobs;
}

/** Uploads, from being prepared until they are admitted or refused, on SQLite. */
export class SqliteAdmissions implements AdmissionStore {
  readonly #db: SqliteDatabase;
  readonly #tables: AdmissionTables;

  constructor(db: SqliteDatabase, tables: AdmissionTables) {
    this.#db = db;
    this.#tables = tables;
  }

  async create(build: NewBuild): Promise<BuildRow> {
    await this.#tables.keys.ensureNamespace(build.namespace);
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

  async find(namespace: Namespace, id: string): Promise<BuildRow | undefined> {
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
      if (moved > 0) this.#tables.jobs.enqueueInside(INGEST_JOB, id, { namespace, buildId: id });
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

  async commit(job: ClaimedJob, commit: AdmissionCommit): Promise<void> {
    const { images, names } = this.#tables;
    this.#db.transaction(() => {
      const { build, image } = commit;
      this.#endBuild(job, build, 'completed', { template: commit.template });
      for (const pack of commit.packs) images.insertPackInside(build.namespace, pack);
      images.insertImageInside(build.namespace, image);
      names.setInside(build.namespace, {
        name: build.name,
        tag: build.tag,
        imageId: parseImageId(image.record.id),
        configDigest: commit.configDigest,
        diskBytes: commit.diskBytes,
      });
    });
  }

  async fail(job: ClaimedJob, build: BuildRow, problem: BuildProblem): Promise<void> {
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
    if (ended === 0 || !this.#tables.jobs.finishInside(job)) {
      throw new DecantError('INGEST_STATE', `The admission of build ${build.id} was taken over by another worker.`);
    }
  }

  async expire(olderThanMs: number, problem: BuildProblem): Promise<readonly BuildRow[]> {
    const due = `staging_removed = 0 AND updated_at < ${NOW} - ?`;
    // Read first: what fails now keeps its staging for the whole time, however long the next statement waits.
    const ended = this.#db
      .all(`SELECT * FROM builds WHERE status IN ('completed', 'failed') AND ${due} LIMIT 100`, olderThanMs)
      .map(buildOf);
    // Most often there is nothing to do: look before taking the lock that writers wait for.
    const some = this.#db.get(`SELECT 1 FROM builds WHERE status = 'prepared' AND ${due} LIMIT 1`, olderThanMs);
    if (some !== undefined) {
      this.#db.run(
        `UPDATE builds SET status = 'failed', problem = ?, updated_at = ${NOW} WHERE status = 'prepared' AND ${due}`,
        JSON.stringify(problem),
        olderThanMs,
      );
    }
    return ended;
  }

  async stagingRemoved(id: BuildId): Promise<void> {
    this.#db.run('UPDATE builds SET staging_removed = 1 WHERE id = ?', id);
  }
}
