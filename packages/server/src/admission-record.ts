import { createPrivateKey, createPublicKey, generateKeyPairSync, sign } from 'node:crypto';

import { canonicalJson } from '@decant/core';
import type { Admission } from '@decant/ingest';

import type { BuildRow, MetadataStore } from './metadata/store.ts';

/**
 * The document that says what was admitted, signed with the Ed25519 key of this server over the RFC 8785 JSON
 * of its `record` member. It lies beside the image's objects and outlives the metadata.
 */
export async function admissionRecord(metadata: MetadataStore, build: BuildRow, admission: Admission): Promise<string> {
  const pem = await metadata.setting('admission-signing-key', () =>
    generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  );
  const key = createPrivateKey(pem);
  const publicKey = createPublicKey(key).export({ type: 'spki', format: 'der' }).toString('base64');
  const record = {
    image: admission.id,
    namespace: build.namespace,
    build: build.id,
    name: `${build.name}:${build.tag}`,
    format: admission.record.format,
    virtualBytes: admission.record.virtualBytes,
    contentBytes: admission.record.contentBytes,
    config: admission.configDigest,
    ...admission.counts,
    parents: [],
    admittedAt: new Date().toISOString(),
  };
  const value = sign(null, Buffer.from(canonicalJson(record)), key).toString('base64');
  return canonicalJson({ record, signature: { algorithm: 'Ed25519', publicKey, value } });
}
