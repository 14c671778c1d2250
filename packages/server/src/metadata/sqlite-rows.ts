import {
  parseImageId,
  type BuildId,
  type ChunkEncoding,
  type ChunkLocation,
  type ImageRecord,
  type Namespace,
  type RootfsFormat,
} from '@decant/core';

import type { Row } from './sqlite.ts';
import type { BuildRow, BuildStatus, ImageRow, KeyRow, NameRow, RegistryCredentialRow } from './store.ts';

export function keyOf(row: Row): KeyRow {
  return {
    id: String(row['id']),
    namespace: String(row['namespace']) as Namespace,
    createdAt: Number(row['created_at']),
    revokedAt: row['revoked_at'] === null ? null : Number(row['revoked_at']),
  };
}

export function credentialOf(row: Row): RegistryCredentialRow {
  return {
    id: String(row['id']),
    namespace: String(row['namespace']) as Namespace,
    secretHash: String(row['secret_hash']),
    expiresAt: Number(row['expires_at']),
  };
}

export function locationOf(row: Row): ChunkLocation {
  return {
    packKey: String(row['object_key']),
    offset: Number(row['frame_offset']),
    storedBytes: Number(row['stored_bytes']),
    plainBytes: Number(row['plain_bytes']),
    encoding: String(row['encoding']) as ChunkEncoding,
  };
}

export function imageOf(row: Row): ImageRow {
  const record: ImageRecord = {
    id: String(row['id']),
    format: String(row['format']) as ImageRecord['format'],
    filesystem: String(row['filesystem']) as ImageRecord['filesystem'],
    layout: String(row['layout']) as ImageRecord['layout'],
    architecture: row['architecture'] === null ? null : (String(row['architecture']) as ImageRecord['architecture']),
    virtualBytes: Number(row['virtual_bytes']),
    contentBytes: Number(row['content_bytes']),
    chunks: row['chunks'] === null ? null : Number(row['chunks']),
    storedBytes: Number(row['stored_bytes']),
    createdAt: new Date(Number(row['created_at'])).toISOString(),
  };
  return { record, configDigest: text(row['config_digest']) };
}

export function nameOf(row: Row): NameRow {
  return {
    name: String(row['name']),
    tag: String(row['tag']),
    imageId: parseImageId(String(row['image_id'])),
    configDigest: text(row['config_digest']),
    diskBytes: Number(row['disk_bytes']),
    updatedAt: Number(row['updated_at']),
  };
}

export function buildOf(row: Row): BuildRow {
  return {
    id: String(row['id']) as BuildId,
    namespace: String(row['namespace']) as Namespace,
    snapshotId: String(row['snapshot_id']),
    name: String(row['name']),
    tag: String(row['tag']),
    format: String(row['format']) as RootfsFormat,
    status: String(row['status']) as BuildStatus,
    request: json(row['request']),
    completion: json(row['completion']),
    template: json(row['template']) as BuildRow['template'],
    problem: json(row['problem']) as BuildRow['problem'],
    progressBytes: Number(row['progress_bytes']),
    progressTotal: Number(row['progress_total']),
  };
}

function text(value: Row[string] | undefined): string | null {
  return value === null || value === undefined ? null : String(value);
}

function json(value: Row[string] | undefined): unknown {
  return value === null || value === undefined ? null : JSON.parse(String(value));
}
