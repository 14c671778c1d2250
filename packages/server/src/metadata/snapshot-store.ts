import type { ImageId, Namespace } from '@decant/core';

/** An image with architecture, ttl and tags. Times are milliseconds since 1970 on the store's clock. */
export interface SnapshotRow {
  /** Grows with every snapshot. */
  readonly seq: number;
  readonly id: string;
  readonly namespace: Namespace;
  readonly imageId: ImageId;
  /** `NAME:TAG` the image was given. */
  readonly imageName: string;
  readonly architecture: 'amd64' | 'arm64' | null;
  readonly byteSize: number;
  readonly tags: Readonly<Record<string, string>>;
  /** Seconds. */
  readonly ttl: number | null;
  readonly createdAt: number;
  /** When it was retired, by a call or by its ttl; null while it is neither. */
  readonly retiredAt: number | null;
  readonly updatedAt: number;
}

export interface SnapshotAliasRow {
  readonly snapshotId: string;
  readonly alias: string;
  readonly createdAt: number;
}

export interface SnapshotStore {
  /** @throws NOT_FOUND when the namespace has no such image. */
  create(
    snapshot: Pick<
      SnapshotRow,
      'id' | 'namespace' | 'imageId' | 'imageName' | 'architecture' | 'byteSize' | 'tags' | 'ttl'
    >,
  ): Promise<SnapshotRow>;
  find(namespace: Namespace, id: string): Promise<SnapshotRow | undefined>;
  findByAlias(namespace: Namespace, alias: string): Promise<SnapshotRow | undefined>;
  /** Newest first, after the one with the id `after`; undefined when there is no such one. Tags must all be equal. */
  list(
    namespace: Namespace,
    options: {
      readonly limit: number;
      readonly after?: string | undefined;
      readonly tags?: Readonly<Record<string, string>> | undefined;
      readonly excludeRetired?: boolean | undefined;
    },
  ): Promise<readonly SnapshotRow[] | undefined>;
  /** Retiring again keeps the first time. Undefined: no such snapshot. */
  retire(namespace: Namespace, id: string): Promise<SnapshotRow | undefined>;
  aliases(namespace: Namespace, id: string): Promise<readonly SnapshotAliasRow[]>;
  /** Points the alias at this snapshot, wherever it pointed. Returns false when there is no such snapshot. */
  setAlias(namespace: Namespace, id: string, alias: string): Promise<boolean>;
  removeAlias(namespace: Namespace, alias: string): Promise<boolean>;
}
