import {
  MAX_PARTS,
  PART_BYTES,
  signedGetSchema,
  signedMultipartSchema,
  type BlobSignRequest,
  type SignedGet,
  type SignedMultipart,
} from '@decant/core';
import type { HttpClient } from '@decant/transport';

import { uploadMultipart, type UploadOptions, type UploadResult } from './upload.ts';

const SIGN_PATH = '/api/v1/blob/sign';
/** 10,000 URLs of 2 KiB and what surrounds them. */
const MAX_SIGN_BYTES = 32 * 1024 * 1024;

export interface SignCallOptions {
  readonly signal?: AbortSignal | undefined;
}

/** Asks the dataplane where an artifact goes, and for the URLs to send it there. Not repeated: it starts an upload. */
export function signUpload(
  client: HttpClient,
  relPath: string,
  sizeBytes: number,
  options: SignCallOptions = {},
): Promise<SignedMultipart> {
  const maxParts = Math.min(MAX_PARTS, Math.max(1, Math.ceil(sizeBytes / PART_BYTES)));
  const body: BlobSignRequest = {
    target: { kind: 'artifact', rel_path: relPath },
    op: { kind: 'put_artifact', multipart_hint: { max_parts: maxParts, part_size_bytes: PART_BYTES } },
  };
  return client.json(signedMultipartSchema, 'POST', SIGN_PATH, { body, maxBytes: MAX_SIGN_BYTES, ...options });
}

/** Asks the dataplane for a URL that reads the object of a URI it composed. */
export function signDownload(client: HttpClient, uri: string, options: SignCallOptions = {}): Promise<SignedGet> {
  const body: BlobSignRequest = { target: { kind: 'blob', uri }, op: { kind: 'get_blob' } };
  return client.json(signedGetSchema, 'POST', SIGN_PATH, { body, idempotent: true, ...options });
}

export interface UploadArtifactOptions extends Omit<UploadOptions, 'signed'> {
  /** Client of the dataplane. */
  readonly client: HttpClient;
  /** Where the artifact goes, below what the caller may write; the answer's URI is what counts afterwards. */
  readonly relPath: string;
}

/** Signs and sends one artifact. Errors as of the sign call and {@link uploadMultipart}. */
export async function uploadArtifact(options: UploadArtifactOptions): Promise<UploadResult> {
  const { client, relPath, ...upload } = options;
  const signed = await signUpload(client, relPath, upload.source.sizeBytes, { signal: upload.signal });
  return uploadMultipart({ ...upload, signed });
}
