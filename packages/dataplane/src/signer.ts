import {
  DecantError,
  MAX_PARTS,
  PART_BYTES,
  quote,
  type BlobSignRequest,
  type ObjectStore,
  type SignedGet,
  type SignedMultipart,
} from '@decant/core';

import { objectNotFound } from './object-errors.ts';
import { encodeKey, faultOfKey } from './object-key.ts';
import { MAX_EXPIRES_SECONDS, presignUrl, type Credentials } from './sigv4.ts';

/** Parts signed when a request does not say how many: 10 GiB of them. */
const DEFAULT_PARTS = 160;
const DAY_SECONDS = 24 * 3600;

export interface BlobSignerOptions {
  readonly store: ObjectStore;
  readonly credentials: Credentials;
  readonly region: string;
  /** Where the store answers, with the bucket when it is part of the path; a key is appended. A function is asked each time. */
  readonly publicBaseUrl: string | (() => string);
  /** First part of every URI; default `decant`. */
  readonly uriScheme?: string | undefined;
  /** Second part of every URI. */
  readonly bucket: string;
  /** Life of upload URLs in seconds: they are signed before a build that may be long. Default a day, at most 7. */
  readonly uploadExpiresSeconds?: number | undefined;
  /** Life of read URLs in seconds; default an hour, at most 7 days. */
  readonly downloadExpiresSeconds?: number | undefined;
  /** Largest part a client may ask for, in bytes; default 64 MiB. */
  readonly maxPartBytes?: number | undefined;
  /** Milliseconds since 1970; default: the clock. */
  readonly now?: (() => number) | undefined;
}

export interface SignOptions {
  /** The caller may touch only keys that start with this; it ends in a slash. */
  readonly namespacePrefix: string;
  readonly request: BlobSignRequest;
  readonly signal?: AbortSignal | undefined;
}

export interface BlobSigner {
  /**
   * Answers a sign request: starts a multipart upload, or signs the read of an object.
   * @throws SIGN_PATH_FORBIDDEN for a path or URI that is malformed, of another store or not the caller's;
   * OBJECT_NOT_FOUND for a read of nothing; LIMIT_EXCEEDED for a part size over the limit; USAGE for a target
   * that does not fit the operation.
   */
  sign(options: SignOptions): Promise<SignedMultipart | SignedGet>;
  /** A read of a key that the caller has already been found to be allowed to read; whether it exists is not checked. */
  signGet(key: string): SignedGet;
  uriOfKey(key: string): string;
  /** The key in a URI of this store. @throws SIGN_PATH_FORBIDDEN for any other. */
  keyOfUri(uri: string): string;
}

/** The one who decides what a signed URL may name: it composes every URI and key itself. */
export function createBlobSigner(options: BlobSignerOptions): BlobSigner {
  const { store, credentials, region, uriScheme = 'decant', bucket, now = Date.now } = options;
  const { uploadExpiresSeconds = DAY_SECONDS, downloadExpiresSeconds = 3600, maxPartBytes = PART_BYTES } = options;
  const root = `${uriScheme}://${bucket}/`;
  if (!/^[a-z][a-z0-9+.-]*:\/\/[^/\s]+\/$/.test(root)) {
    throw new DecantError('CONFIG_INVALID', `Not a scheme and bucket: ${quote(root)}.`);
  }
  for (const seconds of [uploadExpiresSeconds, downloadExpiresSeconds]) {
    if (!Number.isInteger(seconds) || seconds < 1 || seconds > MAX_EXPIRES_SECONDS) {
      throw new DecantError('CONFIG_INVALID', `Signed URLs live 1 to ${MAX_EXPIRES_SECONDS} seconds, not ${seconds}.`);
    }
  }

  const urlOfKey = (key: string): string => {
    const base = typeof options.publicBaseUrl === 'function' ? options.publicBaseUrl() : options.publicBaseUrl;
    return `${base.replace(/\/+$/, '')}/${encodeKey(key)}`;
  };
  const presign = (method: string, url: string, expiresSeconds: number, at: number): string =>
    presignUrl({ method, url, credentials, region, expiresSeconds, now: () => at });
  const expiry = (at: number, seconds: number): string =>
    new Date((Math.floor(at / 1000) + seconds) * 1000).toISOString();

  const keyOfUri = (uri: string): string => {
    if (!uri.startsWith(root)) throw forbidden(uri, 'it is not a URI of this store');
    return checkPath(uri.slice(root.length));
  };

  const signGet = (key: string): SignedGet => {
    const at = now();
    return {
      kind: 'single_get',
      uri: root + key,
      method: 'GET',
      url: presign('GET', urlOfKey(key), downloadExpiresSeconds, at),
      headers: {},
      expiresAt: expiry(at, downloadExpiresSeconds),
    };
  };

  const signUpload = async (
    key: string,
    hint: { max_parts: number; part_size_bytes: number },
    signal: AbortSignal | undefined,
  ): Promise<SignedMultipart> => {
    if (hint.part_size_bytes > maxPartBytes || hint.max_parts > MAX_PARTS) {
      throw new DecantError('LIMIT_EXCEEDED', `Parts have at most ${maxPartBytes} bytes, and there are ${MAX_PARTS}.`, {
        details: { maxPartBytes, maxParts: MAX_PARTS },
      });
    }
    const uploadId = await store.createMultipart(key, { signal });
    const at = now();
    const upload = `uploadId=${encodeURIComponent(uploadId)}`;
    const url = urlOfKey(key);
    return {
      kind: 's3_multipart',
      uri: root + key,
      uploadId,
      partSizeBytes: hint.part_size_bytes,
      partUrls: Array.from({ length: hint.max_parts }, (_, index) =>
        presign('PUT', `${url}?partNumber=${index + 1}&${upload}`, uploadExpiresSeconds, at),
      ),
      completeUrl: presign('POST', `${url}?${upload}`, uploadExpiresSeconds, at),
      abortUrl: presign('DELETE', `${url}?${upload}`, uploadExpiresSeconds, at),
      expiresAt: expiry(at, uploadExpiresSeconds),
    };
  };

  return {
    async sign({ namespacePrefix, request, signal }) {
      const { target, op } = request;
      if (target.kind === 'artifact' && op.kind === 'put_artifact') {
        const key = checkPath(target.rel_path);
        checkOwner(key, namespacePrefix);
        const hint = op.multipart_hint ?? {
          max_parts: DEFAULT_PARTS,
          part_size_bytes: Math.min(PART_BYTES, maxPartBytes),
        };
        return signUpload(key, hint, signal);
      }
      if (target.kind === 'blob' && op.kind === 'get_blob') {
        const key = keyOfUri(target.uri);
        checkOwner(key, namespacePrefix);
        if ((await store.head(key, { signal })) === undefined) throw objectNotFound(key);
        return signGet(key);
      }
      throw new DecantError('USAGE', 'An artifact is put and a blob is got; there is nothing else to sign.');
    },
    signGet,
    uriOfKey: (key) => root + checkPath(key),
    keyOfUri,
  };
}

function checkPath(path: string): string {
  const fault = path.includes('\\') ? 'it has a backslash' : faultOfKey(path);
  if (fault !== undefined) throw forbidden(path, fault);
  return path;
}

function checkOwner(key: string, prefix: string): void {
  // Without its slash, the prefix of one namespace could be the beginning of another's.
  if (!prefix.endsWith('/')) throw new RangeError('a namespace prefix ends in a slash');
  if (!key.startsWith(prefix)) throw forbidden(key, 'it does not belong to the caller');
}

function forbidden(path: string, why: string): DecantError {
  return new DecantError('SIGN_PATH_FORBIDDEN', `The path ${quote(path)} is not signed: ${why}.`);
}
