import { mkdir, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite';

import { DecantError, isDecantError } from '@decant/core';

import { SQLITE_MIGRATIONS } from './migrations.ts';

export type Row = Record<string, null | number | string | Uint8Array>;

/** Milliseconds since 1970 on the database's clock, as an SQL expression. */
export const NOW = `CAST(unixepoch('subsec') * 1000 AS INTEGER)`;

/** How long a statement waits for another process's write to end, in milliseconds. */
const BUSY_TIMEOUT_MS = 15_000;

/** One SQLite database: prepared statements are kept, writes run in immediate transactions. */
export class SqliteDatabase {
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  private constructor(db: DatabaseSync) {
    this.#db = db;
  }

  /** Opens or creates the database (mode 0600) and brings its schema up to date. `:memory:` is allowed. */
  static async open(path: string): Promise<SqliteDatabase> {
    let db: DatabaseSync | undefined;
    try {
      if (path !== ':memory:') {
        await mkdir(dirname(path), { recursive: true, mode: 0o700 });
        // SQLite gives the files it makes beside the database the mode of the database.
        await (await open(path, 'a', 0o600)).close();
      }
      db = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS });
      // WAL is a property of the file: setting it again is a lock that may be had only when nobody else reads.
      const mode = db.prepare('PRAGMA journal_mode').get()?.['journal_mode'];
      if (mode !== 'wal') db.exec('PRAGMA journal_mode = WAL');
      db.exec('PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;');
      const database = new SqliteDatabase(db);
      database.#migrate(path);
      return database;
    } catch (error) {
      if (db?.isOpen === true) db.close();
      if (isDecantError(error)) throw error;
      throw new DecantError('CONFIG_INVALID', `The metadata database ${path} cannot be opened.`, {
        hint: 'Point DECANT_HOME at a directory that this user can write to.',
        cause: error,
      });
    }
  }

  #migrate(path: string): void {
    const version = () => Number(this.get('PRAGMA user_version')?.['user_version'] ?? 0);
    if (version() === SQLITE_MIGRATIONS.length) return;
    this.transaction(() => {
      const now = version();
      if (now > SQLITE_MIGRATIONS.length) {
        throw new DecantError('CONFIG_INVALID', `The database ${path} was written by a newer decant.`, {
          hint: 'Upgrade decant, or point DECANT_HOME at another directory.',
        });
      }
      for (const step of SQLITE_MIGRATIONS.slice(now)) this.#db.exec(step);
      this.#db.exec(`PRAGMA user_version = ${SQLITE_MIGRATIONS.length}`);
    });
  }

  get(sql: string, ...values: SQLInputValue[]): Row | undefined {
    return this.#statement(sql).get(...values) as Row | undefined;
  }

  all(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#statement(sql).all(...values) as Row[];
  }

  /** Runs a write; returns the number of rows it changed. */
  run(sql: string, ...values: SQLInputValue[]): number {
    return Number(this.#statement(sql).run(...values).changes);
  }

  /** Runs `action` in one write transaction; throwing rolls it back. Not nestable. */
  transaction<T>(action: () => T): T {
    return this.#inside('BEGIN IMMEDIATE', action);
  }

  /** Runs reads that all see the same state, and share one lock. Not nestable. */
  snapshot<T>(action: () => T): T {
    return this.#inside('BEGIN', action);
  }

  #inside<T>(begin: string, action: () => T): T {
    this.#db.exec(begin);
    try {
      const result = action();
      this.#db.exec('COMMIT');
      return result;
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw error;
    }
  }

  close(): void {
    this.#statements.clear();
    if (this.#db.isOpen) this.#db.close();
  }

  #statement(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }
}
