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

type PutRequest = BlobSignRequest & { readonly op: { readonly kind: 'put_artifact' } };
type GetRequest = BlobSignRequest & { readonly op: { readonly kind: 'get_blob' } };

/**
 * The sign call. A put is not repeated when it fails, since it may have started an upload; a get is.
 * @throws SIGN_PATH_FORBIDDEN, OBJECT_NOT_FOUND, LIMIT_EXCEEDED as the dataplane says; else as `HttpClient.json`.
 */
export function signBlob(client: HttpClient, request: PutRequest, options?: SignCallOptions): Promise<SignedMultipart>;
export function signBlob(client: HttpClient, request: GetRequest, options?: SignCallOptions): Promise<SignedGet>;
export function signBlob(
  client: HttpClient,
  request: BlobSignRequest,
  { signal }: SignCallOptions = {},
): Promise<SignedMultipart | SignedGet> {
  const options = { body: request, maxBytes: MAX_SIGN_BYTES, signal };
  return request.op.kind === 'put_artifact'
    ? client.json(signedMultipartSchema, 'POST', SIGN_PATH, options)
    : client.json(signedGetSchema, 'POST', SIGN_PATH, { ...options, idempotent: true });
}

/** Asks the dataplane where an artifact goes, and for the URLs to send it there. */
export function signUpload(
  client: HttpClient,
  relPath: string,
  sizeBytes: number,
  options: SignCallOptions = {},
): Promise<SignedMultipart> {
  const maxParts = Math.min(MAX_PARTS, Math.max(1, Math.ceil(sizeBytes / PART_BYTES)));
  const hint = { max_parts: maxParts, part_size_bytes: PART_BYTES };
  const target = { kind: 'artifact', rel_path: relPath } as const;
  return signBlob(client, { target, op: { kind: 'put_artifact', multipart_hint: hint } }, options);
}

/** Asks the dataplane for a URL that reads the object of a URI it composed. */
export function signDownload(client: HttpClient, uri: string, options: SignCallOptions = {}): Promise<SignedGet> {
  return signBlob(client, { target: { kind: 'blob', uri }, op: { kind: 'get_blob' } }, options);
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
