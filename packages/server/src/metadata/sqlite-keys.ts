import { parseNamespace, type Namespace } from '@decant/core';

import { credentialOf, keyOf } from './sqlite-rows.ts';
import { NOW, type SqliteDatabase } from './sqlite.ts';
import type { KeyRow, KeyStore, NewRegistryCredential, RegistryCredentialRow } from './store.ts';

/** Namespaces, API keys and registry credentials on SQLite. */
export class SqliteKeys implements KeyStore {
  readonly #db: SqliteDatabase;

  constructor(db: SqliteDatabase) {
    this.#db = db;
  }

  async ensureNamespace(namespace: Namespace): Promise<void> {
    this.#db.run(
      `INSERT INTO namespaces (name, created_at) VALUES (?, ${NOW}) ON CONFLICT (name) DO NOTHING`,
      namespace,
    );
  }

  async namespaces(): Promise<readonly Namespace[]> {
    return this.#db.all('SELECT name FROM namespaces ORDER BY name').map((row) => parseNamespace(String(row['name'])));
  }

  async create(id: string, namespace: Namespace, secretHash: string): Promise<KeyRow> {
    await this.ensureNamespace(namespace);
    const row = this.#db.get(
      `INSERT INTO api_keys (id, namespace, secret_hash, created_at) VALUES (?, ?, ?, ${NOW}) RETURNING *`,
      id,
      namespace,
      secretHash,
    );
    return keyOf(row!);
  }

  async find(id: string): Promise<(KeyRow & { secretHash: string }) | undefined> {
    const row = this.#db.get('SELECT * FROM api_keys WHERE id = ?', id);
    return row === undefined ? undefined : { ...keyOf(row), secretHash: String(row['secret_hash']) };
  }

  async list(): Promise<readonly KeyRow[]> {
    return this.#db.all('SELECT * FROM api_keys ORDER BY created_at, id').map(keyOf);
  }

  async revoke(id: string): Promise<KeyRow | undefined> {
    const row = this.#db.get(
      `UPDATE api_keys SET revoked_at = coalesce(revoked_at, ${NOW}) WHERE id = ? RETURNING *`,
      id,
    );
    return row === undefined ? undefined : keyOf(row);
  }

  async createRegistryCredential(credential: NewRegistryCredential): Promise<RegistryCredentialRow> {
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
}
