import { buildFieldsSchema, DecantError, parseNamespace, type Namespace, type RemoteBuildStatus } from '@decant/core';

import type {
  BuildOutcome,
  BuildTrust,
  ClaimedBuild,
  ClaimLimits,
  ImageBuildProblem,
  ImageBuildRow,
  ImageBuildStore,
  LogChunk,
  NewImageBuild,
  SubmitLimits,
} from './image-build-store.ts';
import { NOW, type Row, type SqliteDatabase } from './sqlite.ts';

/** Bytes of log that one read gives, about. */
const READ_BYTES = 256 * 1024;

/**
 * Waiting builds; they start by `turn`, `served`, `seq`. `turn` is what is running and ahead of them in their namespace;
 * `served` is when a build of it last started, without which a namespace with old builds would come first for ever where
 * no more builds run at a time than namespaces have waiting ones. Within a namespace builds start in order, so the newest
 * that has started is the last.
 */
const QUEUE = `
  served AS MATERIALIZED (
    SELECT w.namespace, coalesce((
      SELECT s.started_at FROM image_builds s
      WHERE s.namespace = w.namespace AND s.started_at IS NOT NULL ORDER BY s.seq DESC LIMIT 1), 0) AS at
    FROM (SELECT DISTINCT namespace FROM image_builds WHERE status = 'queued') w),
  queue AS (
    SELECT q.id, q.seq, q.namespace, q.trust, coalesce(r.running, 0) AS running, v.at AS served,
      coalesce(r.running, 0) + row_number() OVER (PARTITION BY q.namespace ORDER BY q.seq) AS turn
    FROM image_builds q
    JOIN served v ON v.namespace = q.namespace
    LEFT JOIN (SELECT namespace, count(*) AS running FROM image_builds WHERE status = 'running' GROUP BY namespace) r
      ON r.namespace = q.namespace
    WHERE q.status = 'queued')`;

/** Builds of the image-builder on SQLite. */
export class SqliteImageBuilds implements ImageBuildStore {
  readonly #db: SqliteDatabase;

  constructor(db: SqliteDatabase) {
    this.#db = db;
  }

  async submit(build: NewImageBuild, limits: SubmitLimits) {
    return this.#db.transaction(() => {
      const key = build.idempotencyKey ?? null;
      const before = key === null ? this.#recent(build, limits.repeatMs) : this.#byKey(build.namespace, key);
      if (before !== undefined) return { build: before, repeated: true };
      const queued = this.#db.get(
        `SELECT count(*) AS n FROM image_builds WHERE namespace = ? AND status = 'queued'`,
        build.namespace,
      );
      if (Number(queued?.['n']) >= limits.queued) {
        throw new DecantError('BUILD_QUEUE_FULL', `${limits.queued} builds wait already.`, {
          hint: 'Wait until some have ended, or cancel some.',
          details: { limit: limits.queued },
        });
      }
      this.#db.run(
        `INSERT INTO namespaces (name, created_at) VALUES (?, ${NOW}) ON CONFLICT (name) DO NOTHING`,
        build.namespace,
      );
      const row = this.#db.get(
        `INSERT INTO image_builds (id, namespace, trust, host, idempotency_key, digest, name, tag, cache_key, fields,
           context_bytes, status, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ${NOW}) RETURNING *`,
        build.id,
        build.namespace,
        build.trust,
        build.host,
        key,
        build.digest,
        build.name,
        build.tag,
        build.cacheKey,
        JSON.stringify(build.fields),
        build.contextBytes,
      );
      return { build: buildOf(row!), repeated: false };
    });
  }

  async find(namespace: Namespace, id: string) {
    return this.#one('SELECT * FROM image_builds WHERE namespace = ? AND id = ?', namespace, id);
  }

  async findByIdempotencyKey(namespace: Namespace, key: string) {
    return this.#byKey(namespace, key);
  }

  #recent({ namespace, digest }: NewImageBuild, withinMs: number) {
    const row = this.#db.get(
      `SELECT * FROM image_builds WHERE namespace = ? AND digest = ? AND idempotency_key IS NULL
         AND status IN ('queued', 'running', 'succeeded') AND cancel_requested = 0 AND created_at > ${NOW} - ?
       ORDER BY seq DESC LIMIT 1`,
      namespace,
      digest,
      withinMs,
    );
    return row === undefined ? undefined : buildOf(row);
  }

  #byKey(namespace: Namespace, key: string) {
    return this.#one('SELECT * FROM image_builds WHERE namespace = ? AND idempotency_key = ?', namespace, key);
  }

  async findByImage(namespace: Namespace, imageDigest: string) {
    return this.#one(
      'SELECT * FROM image_builds WHERE namespace = ? AND image_digest = ? ORDER BY seq DESC LIMIT 1',
      namespace,
      imageDigest,
    );
  }

  #one(sql: string, ...values: string[]): ImageBuildRow | undefined {
    const row = this.#db.get(sql, ...values);
    return row === undefined ? undefined : buildOf(row);
  }

  async list(
    namespace: Namespace,
    options: { limit: number; before?: number | undefined; status?: RemoteBuildStatus | undefined },
  ) {
    return this.#db
      .all(
        `SELECT * FROM image_builds WHERE namespace = ? AND seq < ? AND (?3 = '' OR status = ?3) ORDER BY seq DESC LIMIT ?`,
        namespace,
        options.before ?? Number.MAX_SAFE_INTEGER,
        options.status ?? '',
        options.limit,
      )
      .map(buildOf);
  }

  async positions(ids: readonly string[]) {
    const rows = this.#db.all(
      `WITH ${QUEUE}, places AS (SELECT id, row_number() OVER (ORDER BY turn, served, seq) AS place FROM queue)
       SELECT id, place FROM places WHERE id IN (SELECT value FROM json_each(?))`,
      JSON.stringify(ids),
    );
    return new Map(rows.map((row) => [String(row['id']), Number(row['place'])]));
  }

  async claim(limits: ClaimLimits): Promise<ClaimedBuild | undefined> {
    // Most often nothing waits: look before taking the lock that writers wait for.
    if (this.#db.get(`SELECT 1 FROM image_builds WHERE status = 'queued' LIMIT 1`) === undefined) return undefined;
    return this.#db.transaction(() => {
      const running = this.#db.get(`SELECT count(*) AS n FROM image_builds WHERE status = 'running'`);
      if (Number(running?.['n']) >= limits.running) return undefined;
      const row = this.#db.get(
        `UPDATE image_builds SET status = 'running', token = token + 1, attempt = attempt + 1,
           lease_until = ${NOW} + ?, started_at = ${NOW}
         WHERE id = (
           WITH ${QUEUE}
           SELECT id FROM queue WHERE running < ? AND trust IN (SELECT value FROM json_each(?))
           ORDER BY turn, served, seq LIMIT 1)
         RETURNING *`,
        limits.leaseMs,
        limits.runningPerNamespace,
        JSON.stringify(limits.trusts),
      );
      return row === undefined ? undefined : { build: buildOf(row), token: Number(row['token']) };
    });
  }

  async renew({ build, token }: ClaimedBuild, leaseMs: number) {
    const row = this.#db.get(
      `UPDATE image_builds SET lease_until = ${NOW} + ? WHERE id = ? AND token = ? AND status = 'running'
       RETURNING cancel_requested`,
      leaseMs,
      build.id,
      token,
    );
    if (row === undefined) return 'lost';
    return row['cancel_requested'] === 1 ? 'cancelled' : 'held';
  }

  async setEngine({ build, token }: ClaimedBuild, engine: string) {
    return this.#held('engine = ?', build, token, engine);
  }

  #held(change: string, build: ImageBuildRow, token: number, ...values: (string | number | null)[]): boolean {
    const sql = `UPDATE image_builds SET ${change} WHERE id = ? AND token = ? AND status = 'running'`;
    return this.#db.run(sql, ...values, build.id, token) > 0;
  }

  async appendLog({ build, token }: ClaimedBuild, lines: readonly string[]) {
    if (lines.length === 0) return true;
    const text = lines.join('\n');
    return this.#db.transaction(() => {
      const row = this.#db.get(
        `UPDATE image_builds SET log_lines = log_lines + ?, log_bytes = log_bytes + ?
         WHERE id = ? AND token = ? AND status = 'running' RETURNING seq, log_lines`,
        lines.length,
        Buffer.byteLength(text) + 1,
        build.id,
        token,
      );
      if (row === undefined) return false;
      this.#db.run(
        'INSERT INTO image_build_logs (build, first_line, lines, text) VALUES (?, ?, ?, ?)',
        Number(row['seq']),
        Number(row['log_lines']) - lines.length + 1,
        lines.length,
        text,
      );
      return true;
    });
  }

  async readLog(build: ImageBuildRow, afterLine: number) {
    const chunks: LogChunk[] = [];
    let bytes = 0;
    // The chunk that holds the line after `afterLine` begins at it or before.
    let from = afterLine + 1;
    const first = this.#db.get(
      'SELECT max(first_line) AS first FROM image_build_logs WHERE build = ? AND first_line <= ?',
      build.seq,
      from,
    );
    if (first?.['first'] != null) from = Number(first['first']);
    while (bytes < READ_BYTES) {
      const row = this.#db.get(
        'SELECT first_line, lines, text FROM image_build_logs WHERE build = ? AND first_line >= ? ORDER BY first_line LIMIT 1',
        build.seq,
        from,
      );
      if (row === undefined) break;
      const firstLine = Number(row['first_line']);
      const text = String(row['text']);
      from = firstLine + Number(row['lines']);
      if (from <= afterLine + 1) continue;
      bytes += text.length;
      chunks.push({ firstLine, lines: text.split('\n') });
    }
    return chunks;
  }

  async finish({ build, token }: ClaimedBuild, outcome: BuildOutcome) {
    const ended = `status = ?, finished_at = ${NOW}, lease_until = NULL`;
    return outcome.status === 'succeeded'
      ? this.#held(
          `${ended}, image_digest = ?, architecture = ?`,
          build,
          token,
          outcome.status,
          outcome.imageDigest,
          outcome.architecture,
        )
      : this.#held(`${ended}, problem = ?`, build, token, outcome.status, JSON.stringify(outcome.problem));
  }

  async release({ build, token }: ClaimedBuild) {
    return this.#held(`status = 'queued', attempt = attempt - 1, lease_until = ${NOW}`, build, token);
  }

  async cancel(namespace: Namespace, id: string, problem: ImageBuildProblem) {
    return this.#db.transaction(() => {
      this.#db.run(
        `UPDATE image_builds SET status = 'cancelled', problem = ?, finished_at = ${NOW}
         WHERE namespace = ? AND id = ? AND status = 'queued'`,
        JSON.stringify(problem),
        namespace,
        id,
      );
      this.#db.run(
        `UPDATE image_builds SET cancel_requested = 1 WHERE namespace = ? AND id = ? AND status = 'running'`,
        namespace,
        id,
      );
      return this.#one('SELECT * FROM image_builds WHERE namespace = ? AND id = ?', namespace, id);
    });
  }

  async recover(options: Parameters<ImageBuildStore['recover']>[0]): Promise<readonly string[]> {
    const lapsed = `status = 'running' AND lease_until < ${NOW}`;
    // The lease of what was put back ended then: it waits anew.
    const waiting = `status = 'queued' AND coalesce(lease_until, created_at) < ${NOW} - ?`;
    const due = this.#db.get(
      `SELECT 1 FROM image_builds WHERE status IN ('queued', 'running') AND ((${lapsed}) OR (${waiting})) LIMIT 1`,
      options.queueMs,
    );
    if (due === undefined) return [];
    return this.#db.transaction(() => {
      const ended: string[] = [];
      const end = (status: string, problem: ImageBuildProblem, where: string, ...values: number[]) => {
        const rows = this.#db.all(
          `UPDATE image_builds SET status = '${status}', problem = ?, finished_at = ${NOW}, lease_until = NULL
           WHERE ${where} RETURNING id`,
          JSON.stringify(problem),
          ...values,
        );
        ended.push(...rows.map((row) => String(row['id'])));
      };
      end('cancelled', options.cancelled, `${lapsed} AND cancel_requested = 1`);
      end('failed', options.lost, `${lapsed} AND attempt >= ?`, options.mostAttempts);
      end('failed', options.expired, waiting, options.queueMs);
      this.#db.run(`UPDATE image_builds SET status = 'queued', lease_until = ${NOW} WHERE ${lapsed}`);
      return ended;
    });
  }

  async withContext() {
    return this.#db
      .all(
        `SELECT * FROM image_builds WHERE context_removed = 0 AND status IN ('succeeded', 'failed', 'cancelled') LIMIT 100`,
      )
      .map(buildOf);
  }

  async contextRemoved(id: string) {
    this.#db.run('UPDATE image_builds SET context_removed = 1 WHERE id = ?', id);
  }

  async purge(olderThanMs: number) {
    return this.#db.run(
      `DELETE FROM image_builds WHERE seq IN (
         SELECT seq FROM image_builds WHERE context_removed = 1 AND finished_at < ${NOW} - ? LIMIT 100)`,
      olderThanMs,
    );
  }
}

function buildOf(row: Row): ImageBuildRow {
  const time = (name: string) => (row[name] === null ? null : Number(row[name]));
  const text = (name: string) => (row[name] === null ? null : String(row[name]));
  const architecture = text('architecture');
  return {
    seq: Number(row['seq']),
    id: String(row['id']),
    namespace: parseNamespace(String(row['namespace'])),
    trust: String(row['trust']) as BuildTrust,
    host: String(row['host']),
    name: String(row['name']),
    tag: String(row['tag']),
    cacheKey: String(row['cache_key']),
    fields: buildFieldsSchema.parse(JSON.parse(String(row['fields']))),
    contextBytes: Number(row['context_bytes']),
    status: String(row['status']) as RemoteBuildStatus,
    imageDigest: text('image_digest'),
    architecture: architecture === 'amd64' || architecture === 'arm64' ? architecture : null,
    engine: text('engine'),
    problem: row['problem'] === null ? null : (JSON.parse(String(row['problem'])) as ImageBuildProblem),
    attempt: Number(row['attempt']),
    logLines: Number(row['log_lines']),
    logBytes: Number(row['log_bytes']),
    createdAt: Number(row['created_at']),
    startedAt: time('started_at'),
    finishedAt: time('finished_at'),
  };
}
