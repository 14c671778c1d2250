import { randomUUID } from 'node:crypto';

import type { ClaimedJob, JobQueue } from '@decant/core';

import { NOW, type SqliteDatabase } from './sqlite.ts';

/** The job queue on SQLite. A claim is lost when its lease has run out and another worker has claimed since. */
export class SqliteJobs implements JobQueue {
  readonly #db: SqliteDatabase;

  constructor(db: SqliteDatabase) {
    this.#db = db;
  }

  async enqueue(kind: string, key: string, payload: unknown): Promise<string> {
    return this.#db.transaction(() => this.enqueueInside(kind, key, payload));
  }

  /** As `enqueue`, inside a transaction that is already open. */
  enqueueInside(kind: string, key: string, payload: unknown): string {
    this.#db.run(
      `INSERT INTO jobs (id, kind, job_key, payload, available_at, created_at) VALUES (?, ?, ?, ?, ${NOW}, ${NOW})
       ON CONFLICT (kind, job_key) DO NOTHING`,
      randomUUID(),
      kind,
      key,
      JSON.stringify(payload),
    );
    return String(this.#db.get('SELECT id FROM jobs WHERE kind = ? AND job_key = ?', kind, key)?.['id']);
  }

  async claim(kinds: readonly string[], leaseMs: number): Promise<ClaimedJob | undefined> {
    const row = this.#db.get(
      `UPDATE jobs SET lease_until = ${NOW} + ?, token = token + 1, attempt = attempt + 1
       WHERE id = (
         SELECT id FROM jobs
         WHERE kind IN (SELECT value FROM json_each(?)) AND available_at <= ${NOW}
           AND (lease_until IS NULL OR lease_until < ${NOW})
         ORDER BY available_at, id LIMIT 1)
       RETURNING id, kind, payload, token, attempt`,
      leaseMs,
      JSON.stringify(kinds),
    );
    if (row === undefined) return undefined;
    return {
      id: String(row['id']),
      kind: String(row['kind']),
      payload: JSON.parse(String(row['payload'])),
      token: Number(row['token']),
      attempt: Number(row['attempt']),
    };
  }

  async renew(job: ClaimedJob, leaseMs: number): Promise<boolean> {
    return (
      this.#db.run(`UPDATE jobs SET lease_until = ${NOW} + ? WHERE id = ? AND token = ?`, leaseMs, job.id, job.token) >
      0
    );
  }

  async finish(job: ClaimedJob): Promise<boolean> {
    return this.finishInside(job);
  }

  /** As `finish`; also usable inside a transaction that is already open. */
  finishInside(job: ClaimedJob): boolean {
    return this.#db.run('DELETE FROM jobs WHERE id = ? AND token = ?', job.id, job.token) > 0;
  }

  async release(job: ClaimedJob, delayMs: number): Promise<boolean> {
    return (
      this.#db.run(
        `UPDATE jobs SET lease_until = NULL, available_at = ${NOW} + ? WHERE id = ? AND token = ?`,
        delayMs,
        job.id,
        job.token,
      ) > 0
    );
  }
}
