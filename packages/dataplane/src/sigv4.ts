import { createHash, createHmac, timingSafeEqual } from 'node:crypto';

import { DecantError } from '@decant/core';

import { encodeRfc3986 } from './object-key.ts';

/**
 * AWS Signature Version 4 in the query of a URL, for S3: only the host header is signed, the payload is not
 * (UNSIGNED-PAYLOAD), and the path is encoded once. Source: "Authenticating Requests: Using Query Parameters
 * (AWS Signature Version 4)" in the Amazon S3 API reference.
 *
 *     string to sign    AWS4-HMAC-SHA256 \n date-time \n scope \n hex SHA-256 of the canonical request
 *     canonical request METHOD \n path \n sorted query without the signature \n host:HOST \n \n host \n UNSIGNED-PAYLOAD
 *     scope             YYYYMMDD/region/service/aws4_request
 *     key               HMAC(HMAC(HMAC(HMAC("AWS4" + secret, YYYYMMDD), region), service), "aws4_request")
 */
const ALGORITHM = 'AWS4-HMAC-SHA256';
const SIGNED_HEADERS = 'host';
const PAYLOAD = 'UNSIGNED-PAYLOAD';

/** The longest life of a presigned URL, in seconds: seven days. */
export const MAX_EXPIRES_SECONDS = 7 * 24 * 3600;
/** How far ahead of the verifier's clock a URL may have been signed. */
const MAX_SKEW_MS = 15 * 60 * 1000;

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

export interface PresignOptions {
  readonly method: string;
  /** Absolute; its own query is signed too. */
  readonly url: string;
  readonly credentials: Credentials;
  readonly region: string;
  /** Default `s3`. */
  readonly service?: string | undefined;
  /** 1 to {@link MAX_EXPIRES_SECONDS}. */
  readonly expiresSeconds: number;
  /** Milliseconds since 1970; default: the clock. */
  readonly now?: (() => number) | undefined;
}

/** The URL with a signature for one method, host, path and query. @throws RangeError for a bad life time. */
export function presignUrl(options: PresignOptions): string {
  const { credentials, region, service = 's3', expiresSeconds, now = Date.now } = options;
  if (!Number.isInteger(expiresSeconds) || expiresSeconds < 1 || expiresSeconds > MAX_EXPIRES_SECONDS) {
    throw new RangeError(`a presigned URL lives 1 to ${MAX_EXPIRES_SECONDS} seconds`);
  }
  const url = new URL(options.url);
  const dateTime = new Date(now()).toISOString().replace(/[:-]|\.\d{3}/g, '');
  const scope = `${dateTime.slice(0, 8)}/${region}/${service}/aws4_request`;
  const query: [string, string][] = [
    ...url.searchParams,
    ['X-Amz-Algorithm', ALGORITHM],
    ['X-Amz-Credential', `${credentials.accessKeyId}/${scope}`],
    ['X-Amz-Date', dateTime],
    ['X-Amz-Expires', String(expiresSeconds)],
    ['X-Amz-SignedHeaders', SIGNED_HEADERS],
  ];
  const path = canonicalPath(url.pathname);
  const canonical = canonicalQuery(query);
  const request = [options.method.toUpperCase(), path, canonical, url.host].join('\n');
  const signature = signatureOf(request, dateTime, scope, cachedKey(credentials, scope));
  return `${url.origin}${path}?${canonical}&X-Amz-Signature=${signature.toString('hex')}`;
}

export interface VerifyOptions {
  /** The secret of an access key id; undefined when there is none. */
  readonly lookupSecret: (accessKeyId: string) => string | undefined | Promise<string | undefined>;
  readonly region: string;
  /** Default `s3`. */
  readonly service?: string | undefined;
  /** Milliseconds since 1970; default: the clock. */
  readonly now?: (() => number) | undefined;
}

export interface VerifiedRequest {
  readonly accessKeyId: string;
  /** Milliseconds since 1970 from which on the URL is refused. */
  readonly expiresAtMs: number;
}

/**
 * Checks that method, host, path and every query parameter of a request are what was signed, and that it
 * is in time.
 * @throws SIGN_URL_INVALID, and SIGN_URL_EXPIRED for a good signature past its time.
 */
export async function verifyPresigned(
  request: { readonly method: string; readonly url: string },
  options: VerifyOptions,
): Promise<VerifiedRequest> {
  const { region, service = 's3', now = Date.now } = options;
  const url = new URL(request.url);
  const given = (name: string): string => {
    const values = url.searchParams.getAll(name);
    if (values.length !== 1) throw invalid(`it must have ${name} once`);
    return values[0]!;
  };
  const signature = given('X-Amz-Signature');
  const dateTime = given('X-Amz-Date');
  const expires = given('X-Amz-Expires');
  const credential = given('X-Amz-Credential');
  if (given('X-Amz-Algorithm') !== ALGORITHM) throw invalid('its algorithm is not supported');
  if (given('X-Amz-SignedHeaders') !== SIGNED_HEADERS) throw invalid('it must sign the host and no other header');
  if (!/^[1-9]\d{0,5}$/.test(expires) || Number(expires) > MAX_EXPIRES_SECONDS) throw invalid('its life time is wrong');
  const signedAtMs = parseDateTime(dateTime);
  const scope = `${dateTime.slice(0, 8)}/${region}/${service}/aws4_request`;
  const accessKeyId = credential.slice(0, Math.max(0, credential.length - scope.length - 1));
  if (accessKeyId === '' || credential !== `${accessKeyId}/${scope}`) throw invalid('its credential scope is wrong');

  const secret = await options.lookupSecret(accessKeyId);
  const query = [...url.searchParams].filter(([name]) => name !== 'X-Amz-Signature');
  const canonical = [request.method.toUpperCase(), canonicalPath(url.pathname), canonicalQuery(query), url.host];
  const expected = signatureOf(canonical.join('\n'), dateTime, scope, signingKey(secret ?? '', scope));
  const claimed = Buffer.from(/^[0-9a-f]{64}$/.test(signature) ? signature : '', 'hex');
  if (claimed.length !== expected.length || !timingSafeEqual(claimed, expected) || secret === undefined) {
    throw invalid('the signature does not match the request');
  }
  const expiresAtMs = signedAtMs + Number(expires) * 1000;
  if (now() >= expiresAtMs) {
    throw new DecantError('SIGN_URL_EXPIRED', `The signed URL expired at ${new Date(expiresAtMs).toISOString()}.`, {
      hint: 'Ask for a new one.',
      details: { expiresAt: new Date(expiresAtMs).toISOString() },
    });
  }
  if (signedAtMs > now() + MAX_SKEW_MS) throw invalid('it is dated in the future');
  return { accessKeyId, expiresAtMs };
}

function invalid(why: string): DecantError {
  return new DecantError('SIGN_URL_INVALID', `The signed URL is not valid: ${why}.`);
}

function parseDateTime(text: string): number {
  const match = /^(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})Z$/.exec(text);
  const time = match === null ? Number.NaN : Date.parse(text.replace(/^(.{4})(..)(..T..)(..)(..Z)$/, '$1-$2-$3:$4:$5'));
  if (Number.isNaN(time)) throw invalid('its date is malformed');
  return time;
}

function canonicalPath(pathname: string): string {
  try {
    return pathname
      .split('/')
      .map((component) => encodeRfc3986(decodeURIComponent(component)))
      .join('/');
  } catch {
    throw invalid('its path is not valid percent-encoded UTF-8');
  }
}

function canonicalQuery(query: readonly (readonly [string, string])[]): string {
  return query
    .map(([name, value]) => [encodeRfc3986(name.toWellFormed()), encodeRfc3986(value.toWellFormed())] as const)
    .sort(([a, x], [b, y]) => (a < b ? -1 : a > b ? 1 : x < y ? -1 : x > y ? 1 : 0))
    .map((pair) => pair.join('='))
    .join('&');
}

/** `request` is method, path, query and host, joined by newlines. */
function signatureOf(request: string, dateTime: string, scope: string, key: Buffer): Buffer {
  const cut = request.lastIndexOf('\n');
  const canonical = `${request.slice(0, cut)}\nhost:${request.slice(cut + 1)}\n\n${SIGNED_HEADERS}\n${PAYLOAD}`;
  const digest = createHash('sha256').update(canonical).digest('hex');
  return createHmac('sha256', key).update(`${ALGORITHM}\n${dateTime}\n${scope}\n${digest}`).digest();
}

const lastKeys = new WeakMap<Credentials, { readonly scope: string; readonly key: Buffer }>();

/** The signing key of a day, kept: one upload takes up to 10,002 signatures. */
function cachedKey(credentials: Credentials, scope: string): Buffer {
  const last = lastKeys.get(credentials);
  if (last?.scope === scope) return last.key;
  const key = signingKey(credentials.secretAccessKey, scope);
  lastKeys.set(credentials, { scope, key });
  return key;
}

function signingKey(secret: string, scope: string): Buffer {
  let key = Buffer.from(`AWS4${secret}`);
  for (const part of scope.split('/')) key = createHmac('sha256', key).update(part).digest();
  return key;
}
